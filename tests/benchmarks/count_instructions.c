/* A plugin of qemu-user: prints how many instructions the threads beside the main one have executed,
 * whenever the program makes a system call whose first argument is MARK (hot_path.py).
 *
 * The prototypes are those of qemu's plugin API, version 1 (docs/devel/tcg-plugins).
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct qemu_plugin_tb;
typedef uint64_t plugin_id;

void qemu_plugin_register_vcpu_tb_trans_cb(
    plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb *, void (*)(unsigned, void *), int flags, void *);
void qemu_plugin_register_vcpu_syscall_cb(
    plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t, uint64_t, uint64_t));

#define VISIBLE __attribute__((visibility("default")))
enum { THREADS = 4096, NO_REGISTERS = 0, MARK = 0x7475746c };

VISIBLE int qemu_plugin_version = 1;
static struct { uint64_t count; char line[56]; } threads[THREADS]; /* a cache line each */

static void executed(unsigned thread, void *instructions)
{
    threads[thread % THREADS].count += (uintptr_t)instructions;
}

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
    qemu_plugin_register_vcpu_tb_exec_cb(
        block, executed, NO_REGISTERS, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void called(plugin_id id, unsigned thread, int64_t number, uint64_t first, uint64_t a2,
                   uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    if (first != MARK)
        return;
    uint64_t sum = 0;
    for (int i = 1; i < THREADS; i++)
        sum += threads[i].count;
    fprintf(stderr, "instructions %" PRIu64 "\n", sum);
}

VISIBLE int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
