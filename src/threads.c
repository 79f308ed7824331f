/* The pool of worker threads; threads.h says what it promises.

   A job is open while its caller hands out chunks. A worker that finds it open joins it; the caller closes it when no
   chunk is left and waits for those who joined, not for those still asleep. Which thread does which chunk is left to
   chance: what a chunk computes must depend on its number only.

   On Linux the workers are kept off their caller's processor: it may wake them up there, where they do not get to run
   while the caller works, beside an idle processor and for tens of milliseconds. */
#if defined(__linux__)
#define _GNU_SOURCE /* sched_getcpu, sets of processors */
#endif

#include "threads.h"

#include <time.h>

#if defined(_WIN32)

int parallel_for(chunk_function chunk, void *context, ptrdiff_t count, int threads, stop_function stop)
{
    (void)threads; /* one thread: this pool knows pthreads only */
    for (ptrdiff_t i = 0; i < count; i++) {
        int stopped = stop();
        if (stopped)
            return stopped;
        chunk(context, i, 0);
    }
    return 0;
}

#else

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sched.h>
#endif

enum {
    CLOSED = 1 << 30,         /* of the state of a job; the lower bits count the workers that joined */
    SPIN_NANOSECONDS = 50000, /* an idle worker spins: the next layer of a network comes within that */
    STOP_NANOSECONDS = 100000000,
};

static struct {
    pthread_mutex_t owner; /* held by the caller whose job this is */
    pthread_mutex_t lock;  /* for the two conditions */
    pthread_cond_t wake, done;
    int workers;
    pthread_t *handles; /* of the workers */
    int avoided;        /* the processor that no worker may use, or -1 */
    atomic_uint jobs; /* opened so far */
    atomic_int state;
    chunk_function chunk;
    void *context;
    ptrdiff_t count;
    int threads;
    atomic_ptrdiff_t next;
} pool;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local int inside; /* a chunk runs on this thread */

static void reset(void) /* at first use, and in a forked child, which has no workers */
{
    pthread_mutex_init(&pool.owner, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.workers = 0;
    pool.avoided = -1;
    atomic_store(&pool.state, CLOSED);
    inside = 0;
}

static void initialize(void)
{
    reset();
    pthread_atfork(NULL, NULL, reset);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void rest(void)
{
#if defined(__x86_64__) || defined(__i386__)
    for (int i = 0; i < 16; i++)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
    for (int i = 0; i < 16; i++)
        __asm__ volatile("yield");
#endif
}

static int next_chunk(ptrdiff_t *i)
{
    *i = atomic_fetch_add(&pool.next, 1);
    return *i < pool.count;
}

static void work(int thread)
{
    ptrdiff_t i;
    inside = 1;
    while (next_chunk(&i))
        pool.chunk(pool.context, i, thread);
    inside = 0;
}

static int join(int thread)
{
    int state = atomic_load(&pool.state);
    while (!(state & CLOSED))
        if (atomic_compare_exchange_weak(&pool.state, &state, state + 1)) {
            if (thread < pool.threads)
                return 1;
            break; /* this job wants fewer threads: leave at once */
        }
    return state & CLOSED ? 0 : -1;
}

static void leave(void)
{
    if (atomic_fetch_sub(&pool.state, 1) - 1 == CLOSED) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_signal(&pool.done);
        pthread_mutex_unlock(&pool.lock);
    }
}

static void *worker(void *argument)
{
    int thread = (int)(intptr_t)argument;
    unsigned seen = 0;
    for (;;) {
        int64_t until = now() + SPIN_NANOSECONDS;
        while (atomic_load(&pool.jobs) == seen && now() < until)
            rest();
        pthread_mutex_lock(&pool.lock);
        while (atomic_load(&pool.jobs) == seen)
            pthread_cond_wait(&pool.wake, &pool.lock);
        pthread_mutex_unlock(&pool.lock);
        seen = atomic_load(&pool.jobs);
        int joined = join(thread);
        if (joined > 0)
            work(thread);
        if (joined)
            leave();
    }
    return NULL;
}

static void start_workers(int wanted) /* those that cannot be had are done without */
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (pool.workers < wanted) {
        pthread_t *handles = realloc(pool.handles, (pool.workers + 1) * sizeof *handles);
        if (!handles)
            break;
        pool.handles = handles;
        if (pthread_create(&handles[pool.workers], &attributes, worker, (void *)(intptr_t)(pool.workers + 1)))
            break;
        pool.workers++;
        pool.avoided = -1;
    }
    pthread_attr_destroy(&attributes);
}

static void keep_workers_off_this_processor(void)
{
#if defined(__linux__)
    int here = sched_getcpu();
    cpu_set_t others;
    if (here == pool.avoided || here < 0 || here >= CPU_SETSIZE || sched_getaffinity(0, sizeof others, &others))
        return;
    CPU_CLR(here, &others);
    if (!CPU_COUNT(&others))
        return;
    for (int i = 0; i < pool.workers; i++)
        pthread_setaffinity_np(pool.handles[i], sizeof others, &others);
    pool.avoided = here;
#endif
}

static void open_job(chunk_function chunk, void *context, ptrdiff_t count, int threads)
{
    pool.chunk = chunk;
    pool.context = context;
    pool.count = count;
    pool.threads = threads;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.state, 0);
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.jobs, 1);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

static void close_job(void)
{
    atomic_fetch_or(&pool.state, CLOSED);
    int64_t until = now() + SPIN_NANOSECONDS;
    while (atomic_load(&pool.state) != CLOSED && now() < until)
        rest();
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.state) != CLOSED)
        pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

/* The caller's share of a loop; with the pool it claims its chunks, else it takes them in order. */
static int take_chunks(chunk_function chunk, void *context, ptrdiff_t count, int shared, stop_function stop)
{
    int64_t ask = now() + STOP_NANOSECONDS;
    int stopped = 0;
    for (ptrdiff_t i = 0; shared ? next_chunk(&i) : i < count; i++) {
        chunk(context, i, 0);
        if (now() < ask)
            continue;
        ask = now() + STOP_NANOSECONDS;
        stopped = stop();
        if (stopped) {
            if (shared)
                atomic_store(&pool.next, count); /* leaves nothing for the workers */
            break;
        }
    }
    return stopped;
}

int parallel_for(chunk_function chunk, void *context, ptrdiff_t count, int threads, stop_function stop)
{
    if (count == 1) { /* nothing to share, and whoever calls looks for a stop after it */
        chunk(context, 0, 0);
        return 0;
    }
    pthread_once(&once, initialize);
    if (threads > count)
        threads = (int)count;
    if (threads < 2 || inside || pthread_mutex_trylock(&pool.owner))
        return take_chunks(chunk, context, count, 0, stop);
    start_workers(threads - 1);
    keep_workers_off_this_processor();
    open_job(chunk, context, count, threads);
    inside = 1;
    int stopped = take_chunks(chunk, context, count, 1, stop);
    inside = 0;
    close_job();
    pthread_mutex_unlock(&pool.owner);
    return stopped;
}

#endif
