/* Runs a suite over every usable tier of the table, each check in a process of its own.
 *
 *   TRIL_TEST_SEED=<n>          the seed of the random cases; else the clock, and printed
 *   TRIL_TEST_SCALE=<x>         times as many random cases (an emulator wants 0.05)
 *   TRIL_TEST_EVERY=<n>         of the cases that are written down in tables one in n
 *   TRIL_TEST_CHECK, _CASE      only this check, only this case: what the report of a failure says
 *   TRIL_TEST_NOT=<a,b>         all but these checks
 *   TRIL_TEST_TIER=<name>       only this tier
 *   TRIL_TEST_EXPECT=<a,b>      tiers that must be usable here: a tier that was expected and skipped is a failure;
 *                               else TRIL_EXPECT_ISA, the tier that the library's own choice is expected to be */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support.h"

static struct tiers usable;

static void find_tiers(void)
{
    const char *only = getenv("TRIL_TEST_TIER"), *name;
    int yes;
    for (int i = 0; (name = tril_isa_list(i, &yes)) != NULL; i++) {
        const bool taken = yes && (only == NULL || strcmp(only, name) == 0);
        printf("tier %s: %s\n", name, taken ? "tested" : yes ? "not asked for" : "this machine cannot run it");
        if (taken) usable.name[usable.n++] = name;
    }
}

START_TEST(expected_tiers)
{
    char expected[256];
    const char *text = getenv("TRIL_TEST_EXPECT");
    if (text == NULL) text = getenv("TRIL_EXPECT_ISA");
    snprintf(expected, sizeof expected, "%s", text != NULL ? text : "");
    ck_assert_msg(usable.n > 0, "no tier to test");
    for (char *name = strtok(expected, ","); name != NULL; name = strtok(NULL, ",")) {
        bool found = false;
        for (int i = 0; i < usable.n; i++)
            found = found || strcmp(usable.name[i], name) == 0;
        ck_assert_msg(found, "tier %s was expected and cannot be tested here", name);
    }
}
END_TEST

/* Whether a list, which may be null, names it. */
static bool is_among(const char *list, const char *name)
{
    const size_t length = strlen(name);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0')) return true;
    }
    return false;
}

START_TEST(one_check)
{
    const struct check *check = &suite_under_test.checks[_i];
    const char *only = getenv("TRIL_TEST_CHECK");
    if (only != NULL && strcmp(only, check->name) != 0) return;
    if (is_among(getenv("TRIL_TEST_NOT"), check->name)) return;
    check_begin(check->name);
    report_signals();
    ck_assert_msg(check->run(&usable), "%s", failure());
}
END_TEST

int main(int argc, char **argv)
{
    (void)argc;
    support_begin(argv[0], (uint64_t)time(NULL));
    find_tiers();
    printf("TRIL_TEST_SEED=0x%llx\n", (unsigned long long)support_seed());
    fflush(stdout);

    Suite *suite = suite_create(suite_under_test.name);
    TCase *tiers = tcase_create("tiers"), *checks = tcase_create("checks");
    tcase_add_test(tiers, expected_tiers);
    tcase_add_loop_test(checks, one_check, 0, suite_under_test.n);
    tcase_set_timeout(checks, 0); /* meson has one */
    suite_add_tcase(suite, tiers);
    suite_add_tcase(suite, checks);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
