/* llm runs a small Llama model from a GGUF file, its attention by tril: a paged K/V cache of any stored type, prompts
 * in chunks, several sequences in one call, threads of its own. docs/llm.md tells how to use it.
 * Build: cc -O3 -ffp-contract=off -D_GNU_SOURCE -I../../tools *.c ../../tools/{npy,options,output}.c -ltril -pthread
 * -lm and with pictures: -DLLM_HEATMAP ../../tools/heatmap.c $(pkg-config --cflags --libs cairo) */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "heatmap.h"
#include "llm.h"
#include "npy.h"
#include "options.h"

void die(const char *format, ...)
{
    char line[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    for (char *p = line; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 127) *p = '?'; /* a file may hold anything */
    }
    fprintf(stderr, "llm: %s\n", line);
    exit(WRONG);
}

void *need(size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size > 0 ? size : 1);
    if (p == NULL) die("no memory for %zu times %zu bytes; give a smaller model, --chunk, --batch or -n", count, size);
    return p;
}

double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A prompt and what becomes of it. */
struct sequence {
    const char *text;
    int32_t *token;     /* the prompt's, then the new ones */
    int64_t prompt, n;  /* tokens of the prompt; of all, so far */
    int64_t done, step; /* of these, in the cache; in the step at hand */
    int32_t *pages;     /* the cache's that are its own while it is running */
    int64_t n_pages;
    uint64_t random, *hashes; /* hashes: [position][layer] */
    float *logits;            /* after the prompt */
    bool running;
};

static struct sequence *seqs;
static int64_t n_seqs, more = 120, page = 16, chunk = 128, batch, context, threads = 1, seed = 1, layer = -1, head;
static const char *model_path, *logits_path, *trace_path, *picture_path;
static struct output *logits, *trace, *picture;
static tril_dtype cache_type;
static double temperature;
static struct model model;
static struct cache cache;
static struct runner runner;
static struct step step;

static void take_prompt(const char *text)
{
    if (text[0] == '\0') die("-p '': give at least one character");
    seqs[n_seqs++] = (struct sequence){.text = text};
}

static void take_temperature(const char *text)
{
    char *end;
    temperature = strtod(text, &end);
    if (end == text || *end != '\0' || !(temperature >= 0 && temperature <= 1000))
        die("--temperature '%s': give a number from 0 to 1000", text);
}

static const char *const type_names[TRIL_DTYPE_COUNT] = {"f32", "f16", "bf16", "i8", "q8_0", "q4_0"};

static void take_cache(const char *text)
{
    int i = 0;
    while (i < TRIL_DTYPE_COUNT && strcmp(text, type_names[i]) != 0)
        i++;
    if (i == TRIL_DTYPE_COUNT) die("--cache '%s': give f32, f16, bf16, i8, q8_0 or q4_0", text);
    cache_type = (tril_dtype)i;
}

static void take_heatmap(const char *text)
{
    char rest;
    if (sscanf(text, "%" SCNd64 ".%" SCNd64 "%c", &layer, &head, &rest) != 2 || layer < 0 || head < 0)
        die("--heatmap '%s': give LAYER.HEAD, counted from 0, such as 2.0", text);
#ifndef LLM_HEATMAP
    die("--heatmap: this program was built without cairo; build it with");
#endif
}

/* Each option's argument goes to a number within a range, to a path, or to a function. */
static const struct {
    const char *name, *help;
    int64_t *number, min, max;
    const char **path;
    void (*take)(const char *);
} known[] = {
    {"--model", "FILE  GGUF: architecture llama, weights in f32, f16 or q8_0, characters as tokens",
     .path = &model_path},
    {"--prompt", "TEXT  continue this; several are continued at once", .take = take_prompt},
    {"--new", "N  how many tokens to add to each (default 120)", .number = &more, .min = 0, .max = 1 << 30},
    {"--output", "FILE.png  where --heatmap draws", .path = &picture_path},
    {"--cache", "TYPE  keys and values as f32 (default), f16, bf16, i8, q8_0 or q4_0", .take = take_cache},
    {"--page", "N  tokens of a page, a multiple of 16 (default 16)", .number = &page, .min = 16, .max = 1 << 20},
    {"--chunk", "N  tokens of a prompt that a step takes (default 128)", .number = &chunk, .min = 1, .max = 1 << 16},
    {"--batch", "N  sequences that run at once (default: all)", .number = &batch, .min = 1, .max = 1 << 10},
    {"--context", "N  most tokens of a sequence (default: the model's)", .number = &context, .min = 1, .max = 1 << 30},
    {"--threads", "N  1 (default) to 256", .number = &threads, .min = 1, .max = 256},
    {"--temperature", "T  0 (default): take the likeliest token; above: draw it", .take = take_temperature},
    {"--seed", "N  of the drawing (default 1)", .number = &seed, .min = 0, .max = INT64_MAX},
    {"--isa", "NAME  the tier of tril (default: the best that the machine has)", .take = isa_option},
    {"--logits", "FILE.npy  write the scores after each prompt", .path = &logits_path},
    {"--trace", "FILE  write a hash of what attention gave for each sequence, position and layer", .path = &trace_path},
    {"--heatmap", "LAYER.HEAD  draw that head's weights in the first prompt, with --output", .take = take_heatmap},
    {"--help", "this", .number = NULL},
};
enum { OPTIONS = sizeof(known) / sizeof(known[0]), SHORT = 4 /* the first ones have a letter as well */ };

static void read_options(int argc, char **argv)
{
    struct option longs[OPTIONS + 1] = {{0}};
    opterr = 0;
    seqs = need((size_t)argc, sizeof *seqs);
    for (int i = 0; i < OPTIONS; i++)
        longs[i] = (struct option){known[i].name + 2, i < OPTIONS - 1, NULL, i < SHORT ? known[i].name[2] : 256 + i};
    for (int c; (c = getopt_long(argc, argv, ":m:p:n:o:h", longs, NULL)) != -1;) {
        int i = 0;
        if (c == ':') die("option '%s' needs an argument; see llm --help", argv[optind - 1]);
        if (c == '?') die("unknown option '%s'; see llm --help", argv[optind - 1]);
        while (i < OPTIONS - 1 && longs[i].val != c)
            i++;
        if (known[i].number != NULL)
            *known[i].number = integer_option(known[i].name, optarg, known[i].min, known[i].max);
        else if (known[i].path != NULL)
            *known[i].path = optarg;
        else if (known[i].take != NULL)
            known[i].take(optarg);
        if (i < OPTIONS - 1) continue;
        printf("usage: llm -m MODEL.gguf -p TEXT [OPTION]...\nruns a small Llama model, its attention by tril\n\n");
        for (i = 0; i < OPTIONS; i++)
            printf("  %c%c %-14s%s\n", i < SHORT ? '-' : ' ', i < SHORT ? known[i].name[2] : ' ', known[i].name,
                   known[i].help);
        printf("\nText goes to standard output, speed to standard error. Exit status: 0 done, 2 wrong input\n");
        exit(DONE);
    }
    if (optind < argc) die("unexpected argument '%s'; a prompt is given with -p, see llm --help", argv[optind]);
    if (model_path == NULL) die("no model; give one with -m, such as -m data/model.gguf");
    if (n_seqs == 0) die("no prompt; give one with -p, such as -p 'In the beginning '");
    if (page % 16 != 0) die("--page '%" PRId64 "': give a multiple of 16", page);
    if ((layer >= 0) != (picture_path != NULL)) die("--heatmap LAYER.HEAD and -o FILE.png go together; give both");
}

/* Everything that depends on the model and the texts. */
static void prepare(void)
{
    int64_t longest = 0, most_pages = 0;
    if (context == 0) context = model.context;
    if (batch == 0 || batch > n_seqs) batch = n_seqs;
    for (struct sequence *s = seqs; s < seqs + n_seqs; s++) {
        s->token = need(strlen(s->text) + (size_t)more, sizeof *s->token);
        s->n = s->prompt = tokenize(&model.tokens, s->text, s->token);
        const int64_t all = s->prompt + more;
        if (all > context)
            die("-p, -n: %d tokens, the context is %d; give less, or --context %d", (int)all, (int)context, (int)all);
        s->n_pages = (all + page - 1) / page;
        s->pages = need((size_t)s->n_pages, sizeof *s->pages);
        s->random = (uint64_t)seed; /* each its own: a text does not depend on those beside it */
        s->logits = need((size_t)model.tokens.n, sizeof *s->logits);
        if (trace_path != NULL) s->hashes = need((size_t)(all * model.layers), sizeof *s->hashes);
        if (s->prompt > longest) longest = s->prompt;
        if (s->n_pages > most_pages) most_pages = s->n_pages;
    }
    if (layer >= model.layers || head >= model.heads)
        die("--heatmap '%d.%d': give at most %d.%d", (int)layer, (int)head, (int)model.layers - 1, model.heads - 1);
    if (layer >= 0 && seqs[0].prompt > HEATMAP_MOST_TOKENS)
        die("--heatmap: a prompt of %d; up to %d are legible", (int)seqs[0].prompt, HEATMAP_MOST_TOKENS);
    if (chunk > longest) chunk = longest;
    cache = cache_new(&model, cache_type, page, most_pages * batch);
    const size_t rows = (size_t)(batch * chunk), square = (size_t)(seqs[0].prompt * seqs[0].prompt);
    runner = runner_new(&model, &cache, (int)threads, batch * chunk);
    if (trace_path != NULL) runner.hashes = need(rows, (size_t)model.layers * sizeof *runner.hashes);
    step.row = need(rows, sizeof *step.row);
    step.wanted = need(rows, sizeof *step.wanted);
    step.seqs = need(rows, sizeof *step.seqs);
    step.picture_size = seqs[0].prompt;
    if (layer >= 0) step.picture = need(square, (size_t)model.heads * sizeof *step.picture);
}

/* A step is, of each sequence that is running, a piece of its prompt or its newest token. */
static void fill(void)
{
    step.rows = step.n_seqs = step.n_wanted = 0;
    step.picture_layer = seqs[0].running && seqs[0].done < seqs[0].prompt ? layer : -1;
    for (struct sequence *s = seqs; s < seqs + n_seqs; s++) {
        if (!s->running) continue;
        s->step = s->n - s->done < chunk ? s->n - s->done : chunk;
        step.seqs[step.n_seqs] =
            (tril_seq){.q_first = step.rows, .q_len = s->step, .kv_len = s->done + s->step, .blocks = s->pages};
        for (int64_t i = s->done; i < s->done + s->step; i++)
            step.row[step.rows++] = (struct row){s->token[i], i, s->pages};
        step.n_seqs++;
        if (s->done + s->step == s->n) step.wanted[step.n_wanted++] = step.rows - 1;
    }
}

/* Puts away what a step has given. A sequence that is complete leaves, and its pages with it. */
static void take_results(int64_t *running)
{
    const float *scores = runner.logits;
    const uint64_t *hashes = runner.hashes;
    for (struct sequence *s = seqs; s < seqs + n_seqs; s++) {
        if (!s->running) continue;
        for (int64_t i = 0; i < s->step * model.layers && trace_path != NULL; i++)
            s->hashes[s->done * model.layers + i] = *hashes++;
        s->done += s->step;
        if (s->done < s->n) continue;
        if (s->n == s->prompt) memcpy(s->logits, scores, (size_t)model.tokens.n * sizeof *scores);
        if (more > 0) s->token[s->n++] = sample(scores, model.tokens.n, temperature, &s->random);
        scores += model.tokens.n;
        if (s->n < s->prompt + more && s->token[s->n - 1] != model.tokens.end) continue;
        for (int64_t i = 0; i < s->n_pages; i++)
            cache.free[cache.n_free++] = s->pages[i];
        s->running = false;
        --*running;
    }
}

static void run(void)
{
    struct sequence *next = seqs;
    int64_t running = 0, tokens[2] = {0};
    double all[2] = {0}, attention[2] = {0}; /* of steps with a piece of a prompt, and of others */
    do {
        for (; next < seqs + n_seqs && running < batch; next++, running++) {
            next->running = true; /* it joins; there are pages for all that so many sequences can become */
            for (int64_t i = 0; i < next->n_pages; i++)
                next->pages[i] = cache.free[--cache.n_free];
        }
        fill();
        const int kind = step.rows == step.n_seqs;
        tokens[kind] += step.rows;
        attention[kind] -= runner.attention_seconds;
        all[kind] -= seconds();
        runner_step(&runner, &step);
        all[kind] += seconds();
        attention[kind] += runner.attention_seconds;
        take_results(&running);
    } while (running > 0 || next < seqs + n_seqs);
    for (int i = 0; i < 2; i++) {
        if (tokens[i] > 0)
            fprintf(stderr, "llm: %s, %s cache, threads: %d, %s: %d tokens, %.1f/s, %.1f %% of the time in attention\n",
                    tril_isa(), type_names[cache_type], (int)threads, i == 0 ? "by chunks" : "one by one",
                    (int)tokens[i], (double)tokens[i] / all[i], 100 * attention[i] / all[i]);
    }
}

static void write_texts(void)
{
    for (int64_t i = 0; i < n_seqs; i++) {
        if (n_seqs > 1) printf("--- %d\n", (int)i);
        for (int64_t j = 0; j < seqs[i].n; j++)
            fwrite(model.tokens.of[seqs[i].token[j]].text, 1, model.tokens.of[seqs[i].token[j]].n, stdout);
        printf("\n");
    }
    if (fflush(stdout) != 0 || ferror(stdout)) die("standard output: cannot write: %s", strerror(errno));
}

static void write_logits(void)
{
    const int64_t shape[2] = {n_seqs, model.tokens.n};
    npy_write_header(logits, NPY_F4, n_seqs > 1 ? 2 : 1, n_seqs > 1 ? shape : shape + 1);
    for (int64_t i = 0; i < n_seqs; i++)
        npy_write_elements(logits, NPY_F4, seqs[i].logits, model.tokens.n);
}

static void write_trace(void)
{
    char line[96];
    for (int64_t i = 0; i < n_seqs; i++) {
        for (int64_t j = 0; j < seqs[i].done * model.layers; j++) {
            const int n = snprintf(line, sizeof line, "%d %d %d %016" PRIx64 "\n", (int)i, (int)(j / model.layers),
                                   (int)(j % model.layers), seqs[i].hashes[j]);
            output_write(trace, line, (size_t)n);
        }
    }
}
#ifdef LLM_HEATMAP
static void write_picture(void)
{
    char subtitle[128], *labels[HEATMAP_MOST_TOKENS], text[HEATMAP_MOST_TOKENS][8];
    bool special[HEATMAP_MOST_TOKENS];
    static bool sees[HEATMAP_MOST_TOKENS * HEATMAP_MOST_TOKENS];
    const int64_t n = seqs[0].prompt;
    for (int64_t i = 0; i < n; i++) {
        memset(sees + i * n, true, (size_t)i + 1);
        const struct string c = model.tokens.of[seqs[0].token[i]];
        special[i] = c.text[0] == ' ' || c.text[0] == '\n';
        size_t room = c.n < sizeof text[i] ? c.n : sizeof text[i] - 1;
        while (room > 0 && room < c.n && (c.text[room] & 0xc0) == 0x80)
            room--; /* whole characters */
        snprintf(text[i], sizeof text[i], "%.*s", (int)room, c.text);
        if (special[i]) strcpy(text[i], c.text[0] == ' ' ? "\u2423" : "\u21b5");
        labels[i] = text[i];
    }
    snprintf(subtitle, sizeof subtitle, "layer %d, query head %d, keys in %s; each row sums to 1", (int)layer,
             (int)head, type_names[cache_type]);
    const struct heatmap map = {model_path, subtitle, "", 0, n, 0, step.picture + head * n * n, sees, labels, special};
    heatmap_write(&map, picture);
}
#endif
int main(int argc, char **argv)
{
    read_options(argc, argv);
    if (logits_path != NULL) logits = output_open(logits_path);
    if (trace_path != NULL) trace = output_open(trace_path);
    if (picture_path != NULL) picture = output_open(picture_path);
    model = model_read(model_path);
    prepare();
    run();
    write_texts();
    if (logits != NULL) write_logits();
    if (trace != NULL) write_trace();
#ifdef LLM_HEATMAP
    if (picture != NULL) write_picture();
#endif
    outputs_commit();
    return DONE;
}
