// Loaded before everything else (LD_PRELOAD), lets a process on Linux see a processor with AVX2 and nothing newer: CPUID is
// made to fault (arch_prctl(2), ARCH_SET_CPUID), and answered without AVX-512, AVX-VNNI and AMX. Whoever chooses code by
// CPUID, as all contenders of laptop.py do, then chooses AVX2's.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

extern int __sigaction(int, const struct sigaction*, struct sigaction*);

static long answer_by_faults(int on) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, !on); }

static void answer(int number, siginfo_t* info, void* context) {
    greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
    const uint8_t* code = (const uint8_t*)registers[REG_RIP];
    if (code[0] != 0x0f || code[1] != 0xa2) {  // no CPUID: a fault like any other
        const struct sigaction usual = {.sa_handler = SIG_DFL};
        __sigaction(SIGSEGV, &usual, 0);
        return;
    }
    const uint32_t leaf = (uint32_t)registers[REG_RAX], part = (uint32_t)registers[REG_RCX];
    uint32_t a = leaf, b, c = part, d;
    answer_by_faults(0);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    answer_by_faults(1);
    if (leaf == 7 && part == 0) {  // Intel's manual, volume 2, CPUID
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
        d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
    }
    if (leaf == 7 && part == 1) a = b = c = d = 0;
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

// Nobody else may take SIGSEGV: compilers would.
int sigaction(int number, const struct sigaction* to, struct sigaction* before) {
    return number == SIGSEGV ? 0 : __sigaction(number, to, before);
}

__sighandler_t signal(int number, __sighandler_t to) {
    const struct sigaction how = {.sa_handler = to, .sa_flags = SA_RESTART};
    struct sigaction before;
    if (number == SIGSEGV) return SIG_DFL;
    return __sigaction(number, &how, &before) ? SIG_ERR : before.sa_handler;
}

__attribute__((constructor)) static void begin(void) {
    const struct sigaction how = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    if (__sigaction(SIGSEGV, &how, 0) || answer_by_faults(1)) _exit(86);  // a processor that cannot do this
}
