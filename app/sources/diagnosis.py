"""Diagnosis of cameras and streams that give no video, for messages."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

# linux/videodev2.h: VIDIOC_QUERYCAP with struct v4l2_capability, whose last unpacked field is
# device_caps, and VIDIOC_REQBUFS with struct v4l2_requestbuffers.
_QUERYCAP, _CAPABILITY = 0x80685600, struct.Struct("=16s32s32sIII12x")
_REQBUFS, _BUFFERS = 0xC0145608, struct.Struct("=IIIII")
_CAPTURES = 0x1 | 0x1000  # V4L2_CAP_VIDEO_CAPTURE, and its multi-planar form
_ONE_MAPPED_BUFFER = _BUFFERS.pack(1, 1, 1, 0, 0)  # count, VIDEO_CAPTURE, MMAP

_RTSP_PORTS = {"rtsp": 554, "rtsps": 322}
_ANSWER_SECONDS = 3.0
_STATUS = re.compile(rb"RTSP/\d\.\d (\d{3}) ?([ -~]*)")


def camera_trouble(device: str) -> str:
    """Return why a V4L2 camera gives no images, with a remedy.

    Parameters
    ----------
    device : path such as /dev/video0
    """
    if not Path(device).exists():
        others = sorted(str(path) for path in Path("/dev").glob("video*"))
        there = f"there are {' '.join(others)}" if others else "no camera is connected"
        return f"it does not exist, {there}; try another --camera N, or --source FILE"
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return _of_error(error, device)
    try:
        answer = fcntl.ioctl(descriptor, _QUERYCAP, bytes(_CAPABILITY.size))
        if not _CAPABILITY.unpack(answer)[-1] & _CAPTURES:
            return "it gives no video, as a camera's second device does; try another --camera N"
        fcntl.ioctl(descriptor, _REQBUFS, _ONE_MAPPED_BUFFER)
    except OSError as error:
        return _of_error(error, device)
    finally:
        os.close(descriptor)
    return "it gives no images; is its cable loose, or does it lack that size or format?"


def _of_error(error: OSError, device: str) -> str:
    if error.errno == errno.EBUSY:
        return f"another program uses it; find out which: fuser -v {device}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission; try: sudo usermod -aG video $USER, then log in again"
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return "it is gone; is it unplugged?"
    if error.errno in (errno.ENOTTY, errno.EINVAL):
        return "it is not a V4L2 camera"
    return error.strerror or str(error)


def rtsp_trouble(url: str) -> str:
    """Ask an RTSP server for the stream's description and return why it gives no video.

    Parameters
    ----------
    url : rtsp:// or rtsps:// URL; its user and password, if any, are not sent
    """
    import socket  # imported here, since every run imports this module and few ask a server

    parts = urlsplit(url)
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], *parts[2:4], ""))
    question = f"DESCRIBE {bare} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    address = parts.hostname or "", parts.port or _RTSP_PORTS[parts.scheme.lower()]
    try:
        with socket.create_connection(address, _ANSWER_SECONDS) as connection:
            if parts.scheme.lower() == "rtsps":
                return "gives no video, or its certificate is not accepted"
            connection.sendall(question.encode("utf-8", "replace"))
            status = _STATUS.match(connection.recv(1024))
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"
    if status is None:
        return "does not answer as an RTSP server"
    code, text = int(status[1]), status[2].decode("ascii").strip()
    if code == 401 and parts.username:
        return "the server does not accept this user and password, or gives no video"
    if code == 401:
        return "the server asks for a user and a password: rtsp://user:password@host/..."
    if code != 200:
        return f"the server answers {code} {text}"
    return "the server answers, but gives no video that can be decoded"
