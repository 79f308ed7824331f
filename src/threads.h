/* The pool of worker threads: one loop over chunks at a time, shared by the caller and the workers.

   A pool of our own, since OpenMP's workers spin against those of NumPy's BLAS whenever the two alternate, and its
   runtime hangs in a forked child. Workers start at first use, spin for some tens of microseconds when idle, and sleep. */
#ifndef CNNFAST_THREADS_H
#define CNNFAST_THREADS_H

#include <stddef.h>

enum { MOST_THREADS = 64 };

/* Computes chunk i; `thread` is 0 to threads - 1 and never the same for two chunks that run at once. */
typedef void (*chunk_function)(void *context, ptrdiff_t i, int thread);

/* Asked by the calling thread between chunks, some ten times a second; nonzero stops the loop. */
typedef int (*stop_function)(void);

/* Run chunks 0 to count - 1 on up to `threads` threads, the caller's among them. Inside a chunk, or while another
   caller has the pool, the caller does all of them. Returns what `stop` returned. */
int parallel_for(chunk_function chunk, void *context, ptrdiff_t count, int threads, stop_function stop);

#endif
