/* Is it UTF-8? As RFC 3629 has it: no overlong forms, no surrogates, nothing over U+10FFFF. */
#ifndef PD_UTF8_H
#define PD_UTF8_H

#include <stddef.h>

/* Bytes of the sequence that starts at text (1..4), 0 where it is not one. length: bytes that may be read, > 0. */
static inline size_t pd_utf8_step(const char *text, size_t length)
{
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < 0x80) return 1;
    size_t n = p[0] >= 0xc2 && p[0] <= 0xdf   ? 2
               : (p[0] & 0xf0) == 0xe0        ? 3
               : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4
                                              : 0;
    if (n == 0 || n > length) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (p[0] == 0xe0 && p[1] < 0xa0) return 0;
    if (p[0] == 0xed && p[1] > 0x9f) return 0;
    if (p[0] == 0xf0 && p[1] < 0x90) return 0;
    if (p[0] == 0xf4 && p[1] > 0x8f) return 0;
    return n;
}

static inline int pd_utf8_valid(const char *text, size_t length)
{
    for (size_t i = 0; i < length;) {
        size_t step = pd_utf8_step(text + i, length - i);
        if (step == 0) return 0;
        i += step;
    }
    return 1;
}

#endif
