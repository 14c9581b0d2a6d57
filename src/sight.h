/* Who sees whom: the causal rule, windows, prefixes and trees, as integers. tril.h has the rule in words. */
#ifndef TRIL_SIGHT_H
#define TRIL_SIGHT_H

#include <stdbool.h>
#include "tril.h"

/* What a query sees: keys 0 ... sink - 1 and begin ... end - 1, where sink < begin or is 0; but for the holes that a
 * tree makes. From one query of a sequence to the next begin and end never fall, nor does sink while it is not 0. */
struct tril_view {
    int64_t sink, begin, end;
};

static inline int64_t tril_position(const tril_seq *seq, int64_t query)
{
    return seq->kv_len - seq->q_len + query;
}

static inline struct tril_view tril_view_of(const tril_attention *call, const tril_seq *seq, int64_t query)
{
    const int64_t position = tril_position(seq, query);
    struct tril_view view = {0, 0, position < 0 ? 0 : position + 1};
    if (call->tree != NULL) view.end = seq->kv_len;
    if (position < seq->prefix && position >= 0) {
        if (view.end < seq->prefix) view.end = seq->prefix;
        return view;
    }
    if (call->window > 0 && position >= call->window) {
        const int64_t begin = position - call->window + 1;
        if (call->sink_tokens >= begin) return view;
        view.begin = begin;
        view.sink = call->sink_tokens;
    }
    return view;
}

/* The first of the keys that a tree decides about; without one it is behind all of them. */
static inline int64_t tril_tree_begin(const tril_attention *call, const tril_seq *seq)
{
    return call->tree == NULL ? INT64_MAX : seq->kv_len - seq->q_len;
}

/* Whether the tree lets the query see a key from tril_tree_begin() on. */
static inline bool tril_tree_shows(const tril_attention *call, const tril_seq *seq, int64_t query, int64_t key)
{
    if (tril_position(seq, query) < seq->prefix && key < seq->prefix) return true;
    const char *row = (const char *)call->tree + (seq->q_first + query) * call->tree_row_stride;
    const int64_t token = key - (seq->kv_len - seq->q_len);
    return (((const uint64_t *)(const void *)row)[token / 64] >> (token % 64) & 1) != 0;
}

static inline bool tril_sees(const tril_attention *call, const tril_seq *seq, int64_t query,
                             const struct tril_view *view, int64_t key)
{
    if (key >= view->end || (key < view->begin && key >= view->sink)) return false;
    return key < tril_tree_begin(call, seq) || tril_tree_shows(call, seq, query, key);
}

/* One past the end of the keys from `from` on, before `to`, that it all sees, or all does not see like the first: of a
 * stretch of them, if not of the longest. */
static inline int64_t tril_stretch(const tril_attention *call, const tril_seq *seq, int64_t query,
                                   const struct tril_view *view, int64_t from, int64_t to)
{
    const int64_t tree = tril_tree_begin(call, seq);
    const int64_t limit = from < view->sink ? view->sink : from < view->begin ? view->begin : view->end;
    if (from < view->end && limit < to) to = limit;
    if (from < tree) return tree < to ? tree : to;
    const bool first = tril_sees(call, seq, query, view, from);
    int64_t key = from + 1;
    while (key < to && tril_sees(call, seq, query, view, key) == first)
        key++;
    return key;
}

/* Whether it sees any key of from ... to - 1. */
static inline bool tril_sees_any(const tril_attention *call, const tril_seq *seq, int64_t query,
                                 const struct tril_view *view, int64_t from, int64_t to)
{
    const int64_t tree = tril_tree_begin(call, seq);
    for (; from < to && from < view->sink; from++) {
        if (from < tree || tril_tree_shows(call, seq, query, from)) return true;
    }
    if (from < view->begin) from = view->begin;
    for (; from < to && from < view->end; from++) {
        if (from < tree || tril_tree_shows(call, seq, query, from)) return true;
    }
    return false;
}

#endif
