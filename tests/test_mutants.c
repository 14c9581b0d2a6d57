/* The harness tested: every mutant (mutants.py) must fail a check or die, and the unmutated controls must pass them
 * all. Each runs in a process of its own, with compact sizes, and is stopped when it does not come back.
 * TRIL_TEST_TIER=<name> tries only this one. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support.h"

extern const struct suite suite_bits, suite_special, suite_memory, suite_convert, suite_exp2, suite_properties,
    suite_merge, suite_team, suite_masks;
/* The cheapest first: most mutants die at once. */
static const struct suite *const suites[] = {&suite_merge,      &suite_team,    &suite_convert,
                                             &suite_memory,     &suite_special, &suite_exp2,
                                             &suite_properties, &suite_masks,   &suite_bits};

extern const char *const mutant_stale[]; /* see table.h, which this file cannot include beside libcheck's check.h */
extern const char *const mutant_first[];

/* Random cases, as a part of what the suites themselves run: the tables of explicit cases stay whole. */
#define COMPACT 0.05
/* exp2 over one float in so many, besides its corners */
#define COMPACT_SWEEP 2e-6
/* of the tables' cases one in so many for controls, which take all checks and not one: the suites themselves run all */
#define CONTROL_EVERY 24
#define SECONDS       300

static bool is_caught(const char *mutant, const struct suite *suite, int c)
{
    const struct tiers one = {.name = {mutant}, .n = 1};
    const bool control = strstr(mutant, "control") != NULL;
    check_begin(suite->checks[c].name);
    support_scale(suite == &suite_exp2 ? COMPACT_SWEEP : COMPACT, control ? CONTROL_EVERY : 1);
    if (suite->checks[c].run(&one)) return false;
    printf("%s: caught by %s/%s in %.1f s\n", mutant, suite->name, suite->checks[c].name,
           (double)clock() / CLOCKS_PER_SEC);
    if (control) printf("%s\n", failure());
    return true;
}

static int all_checks(const char *mutant, const char *first)
{
    for (int s = 0; s < COUNT(suites) && first[0] != '\0'; s++) {
        for (int c = 0; c < suites[s]->n; c++) {
            if (strcmp(suites[s]->checks[c].name, first) == 0 && is_caught(mutant, suites[s], c)) return 1;
        }
    }
    for (int s = 0; s < COUNT(suites); s++) {
        for (int c = 0; c < suites[s]->n; c++) {
            if (is_caught(mutant, suites[s], c)) return 1;
        }
    }
    return 0;
}

START_TEST(one_mutant)
{
    int usable, status = 0;
    const char *mutant = tril_isa_list(_i, &usable);
    const bool control = strstr(mutant, "control") != NULL;
    const char *only = getenv("TRIL_TEST_TIER");
    if (only != NULL && strcmp(only, mutant) != 0) return;
    ck_assert_msg(mutant_stale[_i][0] == '\0', "tests/mutants.py needs care, a text is not there once: %s",
                  mutant_stale[_i]);
    if (!usable) {
        printf("%s: this machine cannot run it\n", mutant);
        return;
    }
    fflush(stdout);
    const pid_t child = fork();
    ck_assert(child >= 0);
    if (child == 0) {
        alarm(SECONDS);
        const int caught = all_checks(mutant, mutant_first[_i]);
        fflush(stdout);
        _exit(caught);
    }
    ck_assert(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) printf("%s: caught by signal %d\n", mutant, WTERMSIG(status));
    const bool passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    ck_assert_msg(passed == control, control ? "%s must pass and does not" : "%s survives every check", mutant);
}
END_TEST

int main(int argc, char **argv)
{
    (void)argc;
    support_begin(argv[0], 1); /* always the same cases: a mutant is not to survive by luck */
    int n = 0;
    while (tril_isa_list(n, NULL) != NULL)
        n++;
    setvbuf(stdout, NULL, _IOLBF, 0);
    Suite *suite = suite_create("mutants");
    TCase *mutants = tcase_create("mutants");
    tcase_add_loop_test(mutants, one_mutant, 1, n);
    tcase_set_timeout(mutants, 0);
    suite_add_tcase(suite, mutants);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
