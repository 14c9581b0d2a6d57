/* Any .npy file, or text of tokens, as the tool reads them. The input's first byte says which, and what is allowed. */
#include "npy.h"
#include "readers.h"
#include "tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t kind;
static volatile double sum; /* every element is looked at */

static void read_file(const char *path)
{
    sum = 0;
    if (kind >= 0xc0) {
        struct tokens x = tokens_read(path, kind % 2 == 1);
        for (int64_t i = 0; i < x.n; i++)
            for (const char *p = x.label[i]; *p != '\0'; p++)
                sum += *p;
        tokens_free(&x);
        return;
    }
    struct npy x = npy_read(path, 1 + kind % 15, 1 + kind / 15 % 4, "[token][head][dim]");
    for (int64_t i = 0; i < x.elements; i++)
        sum += x.f64 != NULL ? x.f64[i] : (double)x.f32[i];
    npy_free(&x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    kind = data[0];
    read_bytes_as_file(data + 1, size - 1, read_file);
    return 0;
}
