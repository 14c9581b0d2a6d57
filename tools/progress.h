/* How far long work has come: one line on stderr that is written over, on a terminal only. */
#ifndef PROGRESS_H
#define PROGRESS_H

/* Shows "what  42 %" when it has changed; `done` of `total`, any unit. */
void progress(const char *what, double done, double total);

/* The same where there is no telling how much is left. */
void progress_text(const char *what);

/* Wipes the line, so that other output may follow. */
void progress_end(void);

#endif
