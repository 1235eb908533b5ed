/* A stand-in for a USB camera's driver, for tests: the user-space interface of V4L2 and no more.

   Preloaded (LD_PRELOAD), it answers what a process asks of the paths /dev/videoN: open, close,
   ioctl, select, poll, stat, access and the listing of /dev. No hardware and no kernel driver is
   behind it, so nothing that is seen here was seen on a camera. It behaves as the kernel's uvcvideo
   does where a program could notice: formats and sizes it lacks are changed to ones it has, a
   stream's settings cannot be changed while it has buffers, a slow reader finds the oldest frames
   in its buffers and the rest lost, and an unplugged device is dead for whoever has it open.

   FAKE_V4L2="0=/some/folder;1=/another" gives the cameras. A folder holds
     frames/WIDTHxHEIGHT/ (or frames/)   .jpg files, sent in turn as MJPG
     unplugged    while it exists, the camera is not there
     corrupt      while it exists, JPEGs are cut off in the middle
     log          written here: what the driver was asked for, a line each

   Not there: read(), USERPTR and DMABUF buffers, controls, dup() and fork() of an open camera, and
   select() or poll() on cameras and other files at once (the others are ignored). */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum { MAX_DEVICES = 16, MAX_BUFFERS = 8, MAX_FOLDER = 512, MAX_FRAME = 4 << 20 };

static const struct { unsigned width, height; } SIZES[] = {{640, 480}, {320, 240}, {1280, 720}};
static const unsigned FORMATS[] = {V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_MJPEG};
static const unsigned RATES[] = {5, 10, 15, 20, 25, 30, 60};
/* A YUYV picture of 1280x720 takes 1.8 MB: more a second do not go through USB 2. */
static const unsigned RAW_HD_RATE = 10;

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

struct buffer {
    bool queued, done;
    unsigned sequence;
    double time;
};

/* An open camera: what one file descriptor has set. */
struct device {
    bool used, dead, streaming;
    int fd, number, lock;
    pid_t owner;                   /* a fork of it inherits the camera, and cannot use it */
    char folder[MAX_FOLDER];
    unsigned format, width, height, fps;
    unsigned count, size;          /* buffers, and bytes of each */
    unsigned queue[MAX_BUFFERS];   /* indices in the order of queueing; done ones come first */
    unsigned waiting;              /* how many are in the queue */
    struct buffer buffers[MAX_BUFFERS];
    double next;                   /* when the next picture is taken */
    unsigned sequence;
};

static struct device devices[MAX_DEVICES];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void before_fork(void) { pthread_mutex_lock(&mutex); }
static void after_fork(void) { pthread_mutex_unlock(&mutex); }

/* A child must not inherit the mutex from a thread that it does not have. */
__attribute__((constructor)) static void prepare(void)
{
    pthread_atfork(before_fork, after_fork, after_fork);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void pause_for(double seconds)
{
    struct timespec time = {0, (long)(seconds * 1e9)};
    nanosleep(&time, NULL);
}

/* ---- the folder of a camera ------------------------------------------------------------------ */

/* The folder of camera `number`; false where FAKE_V4L2 names none. */
static bool folder_of(int number, char *folder)
{
    const char *text = getenv("FAKE_V4L2");
    while (text && *text) {
        char *path;
        long found = strtol(text, &path, 10);
        if (path == text || *path != '=')
            return false;
        size_t length = strcspn(++path, ";");
        if (found == number && length && length < MAX_FOLDER) {
            memcpy(folder, path, length);
            folder[length] = 0;
            return true;
        }
        text = path + length + (path[length] == ';');
    }
    return false;
}

/* The N of a path /dev/videoN that is ours, else -1. */
static int number_of(const char *path, char *folder)
{
    static const char start[] = "/dev/video";
    if (!path || strncmp(path, start, sizeof start - 1))
        return -1;
    char *end;
    const char *digits = path + sizeof start - 1;
    if (*digits < '0' || *digits > '9')
        return -1;
    long number = strtol(digits, &end, 10);
    return !*end && number < 64 && folder_of((int)number, folder) ? (int)number : -1;
}

static bool has(const char *folder, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return REAL(access)(path, F_OK) == 0;
}

static void tell(const char *folder, const char *form, ...)
{
    char path[PATH_MAX], line[256];
    snprintf(path, sizeof path, "%s/log", folder);
    va_list values;
    va_start(values, form);
    int length = vsnprintf(line, sizeof line, form, values);
    va_end(values);
    int fd = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd >= 0) { /* one write, so that lines of several processes do not mix */
        if (write(fd, line, (size_t)length) < 0)
            perror(path);
        REAL(close)(fd);
    }
}

/* ---- pictures -------------------------------------------------------------------------------- */

/* Reads the JPEG whose turn it is into `bytes`; returns its length, 0 where there is none. */
static size_t read_jpeg(const struct device *device, unsigned sequence, unsigned char *bytes)
{
    char pattern[PATH_MAX];
    glob_t found = {0};
    size_t length = 0;
    snprintf(pattern, sizeof pattern, "%s/frames/%ux%u/*.jpg", device->folder, device->width,
             device->height);
    if (glob(pattern, 0, NULL, &found)) {
        snprintf(pattern, sizeof pattern, "%s/frames/*.jpg", device->folder);
        if (glob(pattern, 0, NULL, &found))
            return 0;
    }
    int fd = REAL(open)(found.gl_pathv[sequence % found.gl_pathc], O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t got = read(fd, bytes, device->size);
        length = got > 0 ? (size_t)got : 0;
        REAL(close)(fd);
    }
    globfree(&found);
    return has(device->folder, "corrupt") ? length / 2 : length;
}

/* A grey picture that tells its number: luma is 16 + number % 220. */
static size_t paint_yuyv(const struct device *device, unsigned sequence, unsigned char *bytes)
{
    size_t length = (size_t)device->width * device->height * 2;
    for (size_t i = 0; i < length; i += 2) {
        bytes[i] = (unsigned char)(16 + sequence % 220);
        bytes[i + 1] = 128;
    }
    return length;
}

/* Puts a picture into a buffer's place in the device's memory, which the program has mapped. */
static size_t fill(const struct device *device, unsigned index)
{
    static unsigned char bytes[MAX_FRAME]; /* the mutex is held */
    unsigned sequence = device->buffers[index].sequence;
    size_t length = device->format == V4L2_PIX_FMT_MJPEG ? read_jpeg(device, sequence, bytes)
                                                         : paint_yuyv(device, sequence, bytes);
    ssize_t done = pwrite(device->fd, bytes, length, (off_t)index * device->size);
    return done > 0 ? (size_t)done : 0;
}

/* Lets the pictures come that were due until now: one into each queued buffer, the rest is lost. */
static void advance(struct device *device)
{
    double time = now();
    if (!device->streaming)
        return;
    for (; device->next <= time; device->next += 1.0 / device->fps, device->sequence++) {
        for (unsigned i = 0; i < device->waiting; i++) {
            struct buffer *buffer = &device->buffers[device->queue[i]];
            if (!buffer->done) {
                buffer->done = true;
                buffer->sequence = device->sequence;
                buffer->time = device->next;
                break;
            }
        }
    }
}

/* Whether DQBUF would return at once, be it with an error. */
static bool ready(struct device *device)
{
    if (device->dead || has(device->folder, "unplugged")) {
        device->dead = true;
        return true;
    }
    advance(device);
    return device->waiting && device->buffers[device->queue[0]].done;
}

/* ---- ioctl ----------------------------------------------------------------------------------- */

static int query_capability(const struct device *device, struct v4l2_capability *answer)
{
    memset(answer, 0, sizeof *answer);
    strcpy((char *)answer->driver, "uvcvideo");
    strcpy((char *)answer->card, "Stand-in camera (tests)");
    snprintf((char *)answer->bus_info, sizeof answer->bus_info, "usb-fake-%d", device->number);
    answer->version = 6 << 16;
    answer->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING | V4L2_CAP_EXT_PIX_FORMAT;
    answer->capabilities = answer->device_caps | V4L2_CAP_DEVICE_CAPS;
    return 0;
}

static int enumerate_input(struct v4l2_input *input)
{
    if (input->index)
        return EINVAL;
    memset(input, 0, sizeof *input);
    strcpy((char *)input->name, "Camera 1");
    input->type = V4L2_INPUT_TYPE_CAMERA;
    return 0;
}

static int enumerate_format(struct v4l2_fmtdesc *answer)
{
    unsigned index = answer->index;
    if (answer->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || index >= LENGTH(FORMATS))
        return EINVAL;
    bool jpeg = FORMATS[index] == V4L2_PIX_FMT_MJPEG;
    memset(answer, 0, sizeof *answer);
    answer->index = index;
    answer->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    answer->pixelformat = FORMATS[index];
    answer->flags = jpeg ? V4L2_FMT_FLAG_COMPRESSED : 0;
    strcpy((char *)answer->description, jpeg ? "Motion-JPEG" : "YUYV 4:2:2");
    return 0;
}

static int enumerate_size(struct v4l2_frmsizeenum *answer)
{
    bool known = answer->pixel_format == FORMATS[0] || answer->pixel_format == FORMATS[1];
    if (!known || answer->index >= LENGTH(SIZES))
        return EINVAL;
    answer->type = V4L2_FRMSIZE_TYPE_DISCRETE;
    answer->discrete.width = SIZES[answer->index].width;
    answer->discrete.height = SIZES[answer->index].height;
    return 0;
}

static unsigned highest_rate(unsigned format, unsigned width)
{
    return format == V4L2_PIX_FMT_YUYV && width == 1280 ? RAW_HD_RATE : 60;
}

static int enumerate_rate(struct v4l2_frmivalenum *answer)
{
    unsigned index = answer->index;
    bool there = index < LENGTH(RATES) &&
                 RATES[index] <= highest_rate(answer->pixel_format, answer->width);
    if (!there)
        return EINVAL;
    answer->type = V4L2_FRMIVAL_TYPE_DISCRETE;
    answer->discrete.numerator = 1;
    answer->discrete.denominator = RATES[index];
    return 0;
}

static unsigned bytes_of(unsigned width, unsigned height)
{
    return (width * height * 2 + 4095) & ~4095u; /* whole pages: buffers are mapped one by one */
}

static void describe(struct v4l2_format *answer, unsigned format, unsigned width, unsigned height)
{
    struct v4l2_pix_format *pixels = &answer->fmt.pix;
    memset(pixels, 0, sizeof *pixels);
    pixels->width = width;
    pixels->height = height;
    pixels->pixelformat = format;
    pixels->field = V4L2_FIELD_NONE;
    pixels->bytesperline = format == V4L2_PIX_FMT_YUYV ? 2 * width : 0;
    pixels->sizeimage = format == V4L2_PIX_FMT_YUYV ? 2 * width * height : bytes_of(width, height);
    pixels->colorspace = V4L2_COLORSPACE_SRGB;
    pixels->priv = V4L2_PIX_FMT_PRIV_MAGIC;
}

/* The format on offer that is nearest to what is asked for, as uvcvideo chooses it. */
static int try_format(struct v4l2_format *asked)
{
    if (asked->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
        return EINVAL;
    unsigned format = FORMATS[0], best = 0;
    long least = LONG_MAX;
    for (unsigned i = 0; i < LENGTH(FORMATS); i++)
        if (FORMATS[i] == asked->fmt.pix.pixelformat)
            format = FORMATS[i];
    for (unsigned i = 0; i < LENGTH(SIZES); i++) {
        long apart = labs((long)SIZES[i].width - (long)asked->fmt.pix.width) +
                     labs((long)SIZES[i].height - (long)asked->fmt.pix.height);
        if (apart < least) {
            least = apart;
            best = i;
        }
    }
    describe(asked, format, SIZES[best].width, SIZES[best].height);
    return 0;
}

/* The rate on offer that is nearest to `asked`. */
static unsigned nearest_rate(const struct device *device, double asked)
{
    unsigned best = RATES[0];
    for (unsigned i = 0; i < LENGTH(RATES); i++) {
        double apart = RATES[i] - asked, least = best - asked;
        if (apart * apart < least * least &&
            RATES[i] <= highest_rate(device->format, device->width))
            best = RATES[i];
    }
    return best;
}

static int set_format(struct device *device, struct v4l2_format *asked)
{
    struct v4l2_pix_format wanted = asked->fmt.pix;
    if (device->count)
        return EBUSY;
    int error = try_format(asked);
    if (error)
        return error;
    device->format = asked->fmt.pix.pixelformat;
    device->width = asked->fmt.pix.width;
    device->height = asked->fmt.pix.height;
    device->fps = nearest_rate(device, device->fps);
    tell(device->folder, "format asked %.4s %ux%u given %.4s %ux%u\n",
         (const char *)&wanted.pixelformat, wanted.width, wanted.height,
         (const char *)&device->format, device->width, device->height);
    return 0;
}

static int get_format(const struct device *device, struct v4l2_format *answer)
{
    if (answer->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
        return EINVAL;
    describe(answer, device->format, device->width, device->height);
    return 0;
}

static int parameters(struct device *device, struct v4l2_streamparm *asked, bool set)
{
    struct v4l2_fract *interval = &asked->parm.capture.timeperframe;
    if (asked->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
        return EINVAL;
    if (set) {
        if (device->streaming)
            return EBUSY;
        if (interval->numerator && interval->denominator)
            device->fps = nearest_rate(device, (double)interval->denominator / interval->numerator);
        tell(device->folder, "fps asked %u/%u given %u\n", interval->denominator,
             interval->numerator, device->fps);
    }
    memset(&asked->parm, 0, sizeof asked->parm);
    asked->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
    interval->numerator = 1;
    interval->denominator = device->fps;
    return 0;
}

static void stop(struct device *device)
{
    if (device->streaming)
        tell(device->folder, "stop\n");
    device->streaming = false;
    device->waiting = 0;
    memset(device->buffers, 0, sizeof device->buffers);
}

/* Lets the camera go for others. */
static void free_buffers(struct device *device)
{
    stop(device);
    device->count = 0;
    if (device->lock >= 0)
        REAL(close)(device->lock);
    device->lock = -1;
}

/* One program at a time has buffers of a camera, as with a real one; the others get EBUSY. */
static bool take_camera(struct device *device)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", device->folder);
    device->lock = REAL(open)(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (device->lock >= 0 && flock(device->lock, LOCK_EX | LOCK_NB) == 0)
        return true;
    free_buffers(device);
    return false;
}

static int request_buffers(struct device *device, struct v4l2_requestbuffers *asked)
{
    bool ours = asked->type == V4L2_BUF_TYPE_VIDEO_CAPTURE && asked->memory == V4L2_MEMORY_MMAP;
    if (!ours)
        return EINVAL;
    if (device->streaming)
        return EBUSY;
    free_buffers(device);
    if (asked->count) {
        if (!take_camera(device))
            return EBUSY;
        device->count = asked->count < MAX_BUFFERS ? asked->count : MAX_BUFFERS;
        device->size = bytes_of(device->width, device->height);
        struct stat64 old;
        off_t wanted = (off_t)device->count * device->size;
        /* Never smaller: a program may still have the old ones mapped. */
        if (fstat64(device->fd, &old) || (old.st_size < wanted && ftruncate(device->fd, wanted)))
            return ENOMEM;
    }
    asked->count = device->count;
    asked->capabilities = V4L2_BUF_CAP_SUPPORTS_MMAP;
    return 0;
}

static int query_buffer(const struct device *device, struct v4l2_buffer *answer)
{
    if (answer->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || answer->index >= device->count)
        return EINVAL;
    const struct buffer *buffer = &device->buffers[answer->index];
    answer->memory = V4L2_MEMORY_MMAP;
    answer->m.offset = answer->index * device->size;
    answer->length = device->size;
    answer->field = V4L2_FIELD_NONE;
    answer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    answer->flags |= buffer->queued ? V4L2_BUF_FLAG_QUEUED : 0;
    answer->flags |= buffer->done ? V4L2_BUF_FLAG_DONE : 0;
    return 0;
}

static int queue_buffer(struct device *device, struct v4l2_buffer *asked)
{
    if (asked->memory != V4L2_MEMORY_MMAP || query_buffer(device, asked))
        return EINVAL;
    struct buffer *buffer = &device->buffers[asked->index];
    if (buffer->queued)
        return EINVAL;
    advance(device); /* what was taken before this buffer came is not for it */
    *buffer = (struct buffer){.queued = true};
    device->queue[device->waiting++] = asked->index;
    return 0;
}

static int dequeue_buffer(struct device *device, struct v4l2_buffer *answer)
{
    if (!device->streaming || answer->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
        return EINVAL;
    if (!ready(device))
        return EAGAIN;
    if (device->dead)
        return ENODEV;
    unsigned index = device->queue[0];
    struct buffer *buffer = &device->buffers[index];
    answer->index = index;
    *buffer = (struct buffer){.sequence = buffer->sequence, .time = buffer->time};
    memmove(device->queue, device->queue + 1, --device->waiting * sizeof *device->queue);
    query_buffer(device, answer);
    answer->bytesused = (unsigned)fill(device, index);
    answer->sequence = buffer->sequence;
    answer->timestamp.tv_sec = (time_t)buffer->time;
    answer->timestamp.tv_usec = (suseconds_t)((buffer->time - (double)(time_t)buffer->time) * 1e6);
    return 0;
}

static int start(struct device *device)
{
    if (!device->count)
        return EINVAL;
    if (!device->streaming) {
        device->streaming = true;
        device->sequence = 0;
        device->next = now() + 1.0 / device->fps;
        tell(device->folder, "stream %.4s %ux%u %u\n", (const char *)&device->format,
             device->width, device->height, device->fps);
    }
    return 0;
}

static int set_input(const int *input)
{
    return *input ? EINVAL : 0;
}

static int get_input(int *input)
{
    *input = 0;
    return 0;
}

/* The answer to one request: 0 or an error's number. */
static int answer(struct device *device, unsigned long request, void *argument)
{
    if (device->dead || has(device->folder, "unplugged")) {
        device->dead = true;
        return ENODEV;
    }
    switch ((unsigned)request) {
    case VIDIOC_QUERYCAP: return query_capability(device, argument);
    case VIDIOC_ENUMINPUT: return enumerate_input(argument);
    case VIDIOC_G_INPUT: return get_input(argument);
    case VIDIOC_S_INPUT: return set_input(argument);
    case VIDIOC_ENUM_FMT: return enumerate_format(argument);
    case VIDIOC_ENUM_FRAMESIZES: return enumerate_size(argument);
    case VIDIOC_ENUM_FRAMEINTERVALS: return enumerate_rate(argument);
    case VIDIOC_TRY_FMT: return try_format(argument);
    case VIDIOC_S_FMT: return set_format(device, argument);
    case VIDIOC_G_FMT: return get_format(device, argument);
    case VIDIOC_S_PARM: return parameters(device, argument, true);
    case VIDIOC_G_PARM: return parameters(device, argument, false);
    case VIDIOC_REQBUFS: return request_buffers(device, argument);
    case VIDIOC_QUERYBUF: return query_buffer(device, argument);
    case VIDIOC_QBUF: return queue_buffer(device, argument);
    case VIDIOC_DQBUF: return dequeue_buffer(device, argument);
    case VIDIOC_STREAMON: return start(device);
    case VIDIOC_STREAMOFF: stop(device); return 0;
    case VIDIOC_QUERYCTRL:
    case VIDIOC_G_CTRL:
    case VIDIOC_S_CTRL: return EINVAL; /* no such control */
    default: return ENOTTY;
    }
}

/* ---- what is interposed ---------------------------------------------------------------------- */

/* The open camera behind a file descriptor, or NULL; the mutex is held. */
static struct device *device_of(int fd)
{
    for (int i = 0; fd >= 0 && i < MAX_DEVICES; i++)
        if (devices[i].used && devices[i].fd == fd)
            return &devices[i];
    return NULL;
}

static int fail(int error)
{
    errno = error;
    return -1;
}

/* Opens a camera. The descriptor is one of memory, which is why mmap() needs no stand-in. */
static int open_camera(int number, const char *folder, int flags)
{
    if (has(folder, "unplugged"))
        return fail(ENOENT);
    pthread_mutex_lock(&mutex);
    int fd = -1;
    for (int i = 0; i < MAX_DEVICES && fd < 0; i++) {
        if (devices[i].used)
            continue;
        fd = memfd_create("fake-camera", flags & O_CLOEXEC ? MFD_CLOEXEC : 0);
        if (fd < 0)
            break;
        fcntl(fd, F_SETFL, flags & O_NONBLOCK);
        devices[i] = (struct device){.used = true, .fd = fd, .owner = getpid(),
                                     .number = number, .lock = -1,
                                     .format = FORMATS[0], .width = SIZES[0].width,
                                     .height = SIZES[0].height, .fps = 30};
        strcpy(devices[i].folder, folder);
        tell(folder, "open\n");
    }
    pthread_mutex_unlock(&mutex);
    return fd < 0 ? fail(EMFILE) : fd;
}

#define OPEN(path, flags, real)                                                                   \
    char folder[MAX_FOLDER];                                                                      \
    int number = number_of(path, folder);                                                         \
    if (number >= 0)                                                                              \
        return open_camera(number, folder, flags);                                                \
    mode_t mode = 0;                                                                              \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                      \
        va_list values;                                                                           \
        va_start(values, flags);                                                                  \
        mode = va_arg(values, mode_t);                                                            \
        va_end(values);                                                                           \
    }                                                                                             \
    return real

int open(const char *path, int flags, ...)
{
    OPEN(path, flags, REAL(open)(path, flags, mode));
}

int open64(const char *path, int flags, ...)
{
    OPEN(path, flags, REAL(open64)(path, flags, mode));
}

int openat(int folder_fd, const char *path, int flags, ...)
{
    OPEN(path, flags, REAL(openat)(folder_fd, path, flags, mode));
}

int openat64(int folder_fd, const char *path, int flags, ...)
{
    OPEN(path, flags, REAL(openat64)(folder_fd, path, flags, mode));
}

/* What open64 becomes in programs that are built with _FORTIFY_SOURCE, such as Python. */
int __open64_2(const char *path, int flags)
{
    return open64(path, flags);
}

int close(int fd)
{
    pthread_mutex_lock(&mutex);
    struct device *device = device_of(fd);
    if (device && device->owner == getpid()) {
        free_buffers(device);
        tell(device->folder, "close\n");
        device->used = false;
    }
    pthread_mutex_unlock(&mutex);
    return REAL(close)(fd);
}

/* DQBUF waits where the camera was not opened with O_NONBLOCK. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list values;
    va_start(values, request);
    void *argument = va_arg(values, void *);
    va_end(values);
    for (;;) {
        pthread_mutex_lock(&mutex);
        struct device *device = device_of(fd);
        int error = device ? answer(device, request, argument) : 0;
        pthread_mutex_unlock(&mutex);
        if (!device)
            return REAL(ioctl)(fd, request, argument);
        bool wait = error == EAGAIN && !(fcntl(fd, F_GETFL) & O_NONBLOCK);
        if (!wait)
            return error ? fail(error) : 0;
        pause_for(0.001);
    }
}

/* 1 where a descriptor is a camera that is ready, 0 a camera that is not, -1 no camera. */
static int state_of(int fd)
{
    pthread_mutex_lock(&mutex);
    struct device *device = device_of(fd);
    int state = device ? ready(device) : -1;
    pthread_mutex_unlock(&mutex);
    return state;
}

static bool is_dead(int fd)
{
    pthread_mutex_lock(&mutex);
    struct device *device = device_of(fd);
    bool dead = device && device->dead;
    pthread_mutex_unlock(&mutex);
    return dead;
}

int poll(struct pollfd *files, nfds_t count, int milliseconds)
{
    double end = milliseconds < 0 ? 1e300 : now() + milliseconds * 1e-3;
    for (;;) {
        int cameras = 0, found = 0;
        for (nfds_t i = 0; i < count; i++) {
            int state = state_of(files[i].fd);
            files[i].revents = 0;
            if (state > 0)
                files[i].revents = is_dead(files[i].fd) ? POLLERR | POLLHUP
                                                        : files[i].events & (POLLIN | POLLRDNORM);
            found += files[i].revents != 0;
            cameras += state >= 0;
        }
        if (!cameras)
            return REAL(poll)(files, count, milliseconds);
        if (found || now() >= end)
            return found;
        pause_for(0.001);
    }
}

int select(int count, fd_set *reading, fd_set *writing, fd_set *failing, struct timeval *limit)
{
    fd_set ready_ones;
    double end = limit ? now() + limit->tv_sec + limit->tv_usec * 1e-6 : 1e300;
    for (;;) {
        int cameras = 0, found = 0;
        FD_ZERO(&ready_ones);
        for (int fd = 0; reading && fd < count; fd++) {
            int state = FD_ISSET(fd, reading) ? state_of(fd) : -1;
            cameras += state >= 0;
            if (state > 0) {
                FD_SET(fd, &ready_ones);
                found++;
            }
        }
        if (!cameras)
            return REAL(select)(count, reading, writing, failing, limit);
        if (found || now() >= end) {
            *reading = ready_ones;
            if (writing)
                FD_ZERO(writing);
            if (failing)
                FD_ZERO(failing);
            return found;
        }
        pause_for(0.001);
    }
}

/* ---- a camera among the files of /dev -------------------------------------------------------- */

/* 0 and a character device's facts, ENOENT for an unplugged camera, -1 for any other path. */
static int stat_camera(const char *path, struct stat64 *answer)
{
    char folder[MAX_FOLDER];
    int number = number_of(path, folder);
    if (number < 0)
        return -1;
    if (has(folder, "unplugged"))
        return ENOENT;
    if (answer) {
        memset(answer, 0, sizeof *answer);
        answer->st_mode = S_IFCHR | 0660;
        answer->st_nlink = 1;
        answer->st_uid = getuid();
        answer->st_gid = getgid();
        answer->st_rdev = makedev(81, (unsigned)number);
    }
    return 0;
}

#define STAT(path, answer, real)                                                                  \
    int error = stat_camera(path, (struct stat64 *)(answer));                                     \
    return error < 0 ? (real) : error ? fail(error) : 0

_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "needs a 64-bit system");

int stat(const char *path, struct stat *answer)
{
    STAT(path, answer, REAL(stat)(path, answer));
}

int stat64(const char *path, struct stat64 *answer)
{
    STAT(path, answer, REAL(stat64)(path, answer));
}

int lstat(const char *path, struct stat *answer)
{
    STAT(path, answer, REAL(lstat)(path, answer));
}

int lstat64(const char *path, struct stat64 *answer)
{
    STAT(path, answer, REAL(lstat64)(path, answer));
}

int fstatat64(int fd, const char *path, struct stat64 *answer, int flags)
{
    STAT(path, answer, REAL(fstatat64)(fd, path, answer, flags));
}

int access(const char *path, int mode)
{
    STAT(path, NULL, REAL(access)(path, mode));
}

int faccessat(int fd, const char *path, int mode, int flags)
{
    STAT(path, NULL, REAL(faccessat)(fd, path, mode, flags));
}

/* One listing of /dev at a time; a second one at once sees the real files only. */
static struct {
    DIR *stream;
    int next;
    struct dirent64 entry;
} listing;

DIR *opendir(const char *path)
{
    DIR *stream = REAL(opendir)(path);
    pthread_mutex_lock(&mutex);
    if (stream && !listing.stream && (!strcmp(path, "/dev") || !strcmp(path, "/dev/"))) {
        listing.stream = stream;
        listing.next = 0;
    }
    pthread_mutex_unlock(&mutex);
    return stream;
}

struct dirent64 *readdir64(DIR *stream)
{
    char path[32], folder[MAX_FOLDER];
    struct dirent64 *entry;
    do { /* a real camera of that number is hidden behind ours */
        entry = REAL(readdir64)(stream);
        snprintf(path, sizeof path, "/dev/%.20s", entry ? entry->d_name : "");
    } while (entry && stream == listing.stream && number_of(path, folder) >= 0);
    while (!entry && stream == listing.stream && listing.next < 64) {
        snprintf(path, sizeof path, "/dev/video%d", listing.next++);
        if (stat_camera(path, NULL) == 0) {
            entry = &listing.entry;
            entry->d_ino = 1;
            entry->d_type = DT_CHR;
            strcpy(entry->d_name, path + strlen("/dev/"));
        }
    }
    return entry;
}

int closedir(DIR *stream)
{
    pthread_mutex_lock(&mutex);
    if (stream == listing.stream)
        listing.stream = NULL;
    pthread_mutex_unlock(&mutex);
    return REAL(closedir)(stream);
}
