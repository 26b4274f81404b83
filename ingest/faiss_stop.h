/* A way to stop FAISS in the middle of its work, which its C API lacks. */
#ifndef PD_FAISS_STOP_H
#define PD_FAISS_STOP_H

#ifdef __cplusplus
extern "C" {
#endif

/* From now on this thread's calls of FAISS ask stop(context) every few milliseconds of a search or a training, and fail when it
 * is not 0. NULL: they do not ask any more. Other threads' calls are not concerned. */
void pd_faiss_stop(int (*stop)(void *context), void *context);

#ifdef __cplusplus
}
#endif

#endif
