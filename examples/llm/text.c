/* A vocabulary of single characters, which is all that the shipped model needs: no merging, no special tokens. */
#include <math.h>
#include <string.h>

#include "../../tools/random.h"
#include "llm.h"

struct tokens tokens_read(struct gguf *g)
{
    struct tokens t;
    gguf_expect(g, "tokenizer.ggml.model", "none", true);
    t.of = gguf_strings(g, "tokenizer.ggml.tokens", &t.n);
    t.end = (int64_t)gguf_number(g, "tokenizer.ggml.eos_token_id", true, 0, (double)t.n - 1, -1);
    return t;
}

int64_t tokenize(const struct tokens *t, const char *text, int32_t *to)
{
    int64_t n = 0;
    for (size_t left = strlen(text); left > 0; text += t->of[to[n]].n, left -= t->of[to[n]].n, n++) {
        int32_t i = 0;
        while (i < t->n && (t->of[i].n == 0 || t->of[i].n > left || memcmp(t->of[i].text, text, t->of[i].n) != 0))
            i++;
        to[n] = i;
        if (i < t->n) continue;
        char known[256] = "";
        for (i = 0; i < t->n && strlen(known) + t->of[i].n < sizeof known; i++)
            strncat(known, t->of[i].text, t->of[i].n);
        die("-p: '%.8s' begins with what is not in the model's vocabulary; give text of '%s'", text, known);
    }
    return n;
}

/* The largest of score / temperature plus noise of the Gumbel distribution is drawn as softmax would have it. */
int32_t sample(const float *scores, int64_t n, double temperature, uint64_t *random)
{
    int32_t best = 0;
    double most = -INFINITY;
    struct random state = {*random};
    for (int32_t i = 0; i < n; i++) {
        const double u = ((double)(random_bits(&state) >> 11) + 0.5) * 0x1p-53;
        const double x = temperature > 0 ? scores[i] / temperature - log(-log(u)) : (double)scores[i];
        if (!(x > most)) continue;
        best = i;
        most = x;
    }
    *random = state.state;
    return best;
}
