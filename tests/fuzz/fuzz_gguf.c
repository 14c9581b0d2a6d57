/* Any model, as the example of a runtime reads it: a GGUF file that is refused, or that gives a Llama model and runs a
 * step of it. */
#include "../../examples/llm/llm.h"
#include "readers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_model(const char *path)
{
    enum { ROWS = 3 };
    const struct model m = model_read(path);
    const struct cache cache = cache_new(&m, TRIL_F16, 16, 1);
    struct runner runner = runner_new(&m, &cache, 1, ROWS);
    const int32_t page = 0, last = (int32_t)m.tokens.n - 1;
    int64_t wanted = ROWS - 1;
    struct row rows[ROWS];
    for (int i = 0; i < ROWS; i++)
        rows[i] = (struct row){i <= last ? i : last, i, &page};
    tril_seq seq = {.q_len = ROWS, .kv_len = ROWS, .blocks = &page};
    const struct step step = {
        .rows = ROWS, .n_wanted = 1, .n_seqs = 1, .row = rows, .seqs = &seq, .wanted = &wanted, .picture_layer = -1};
    runner_step(&runner, &step);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_bytes_as_file(data, size, run_model);
    return 0;
}
