#include "plan.h"

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b != 0) {
        const int64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

int64_t tril_packed_offset(const tril_seq *seq, int64_t i)
{
    const int64_t before = seq->kv_len - seq->q_len; /* keys before the first query */
    const int64_t blind = before < 0 ? -before : 0;  /* queries that see no key */
    if (i <= blind) return 0;
    const int64_t rows = i - blind, shortest = tril_visible(before + blind);
    /* rows (rows - 1) / 2 without overflow where the result fits */
    const int64_t triangle = rows % 2 == 0 ? rows / 2 * (rows - 1) : (rows - 1) / 2 * rows;
    return rows * shortest + triangle;
}

/* Every region starts on a cache line. */
static size_t place(size_t *at, int64_t floats)
{
    const size_t here = *at;
    *at += (size_t)round_up(floats, 16);
    return here;
}

void tril_plan_make(struct tril_plan *plan, const tril_attention *call, const struct tril_blocking *blocking)
{
    plan->group = call->q_heads / call->kv_heads;
    /* Whole tiles: the smallest number of positions whose rows are a multiple of the tile's, as often as it fits. */
    const int64_t step = blocking->tile_rows / gcd(blocking->tile_rows, plan->group);
    const int64_t steps = blocking->task_rows / (step * plan->group);
    plan->positions = steps > 0 ? steps * step : 1;
    plan->v_row = round_up(call->v_dim, TRIL_PANEL);
    plan->v_panel = TRIL_KEY_BLOCK * TRIL_PANEL + 16;

    const int64_t rows = plan->positions * plan->group;
    size_t at = 0;
    plan->q = place(&at, rows * call->qk_dim);
    plan->k = place(&at, (int64_t)TRIL_RUN_BLOCKS * TRIL_KEY_BLOCK * call->qk_dim);
    plan->v = place(&at, plan->v_row / TRIL_PANEL * (int64_t)plan->v_panel);
    plan->s = place(&at, (int64_t)blocking->tile_rows * TRIL_SCORE_ROW);
    plan->o = place(&at, rows * plan->v_row);
    plan->row_max = place(&at, rows);
    plan->row_sum = place(&at, rows);
    plan->bytes = at * sizeof(float) + 63;
}

bool tril_plan_next(const struct tril_plan *plan, const tril_attention *call, struct tril_walk *walk,
                    struct tril_task *task)
{
    while (walk->seq < call->n_seqs && walk->query >= call->seqs[walk->seq].q_len) {
        walk->packed += tril_packed_offset(&call->seqs[walk->seq], call->seqs[walk->seq].q_len);
        walk->seq++;
        walk->query = 0;
    }
    if (walk->seq >= call->n_seqs) return false;

    const tril_seq *seq = &call->seqs[walk->seq];
    const int64_t left = seq->q_len - walk->query;
    task->seq = seq;
    task->head = walk->head;
    task->query = walk->query;
    task->queries = left < plan->positions ? left : plan->positions;
    task->position = seq->kv_len - seq->q_len + walk->query;
    task->keys = tril_visible(task->position + task->queries - 1);
    task->packed = walk->packed;

    if (++walk->head == call->kv_heads) {
        walk->head = 0;
        walk->query += task->queries;
    }
    return true;
}
