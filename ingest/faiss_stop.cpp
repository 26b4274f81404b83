/* FAISS asks one callback of the whole process between blocks of work, in the thread that called it; ours, installed once, asks
 * what that thread has set. */
#include "faiss_stop.h"

#include <faiss/impl/AuxIndexStructures.h>

#include <mutex>

namespace
{

thread_local int (*asked)(void *) = nullptr;
thread_local void *with = nullptr;
std::once_flag installed;

struct Ask : faiss::InterruptCallback {
    bool want_interrupt() override
    {
        return asked && asked(with);
    }
};

} // namespace

void pd_faiss_stop(int (*stop)(void *context), void *context)
{
    std::call_once(installed, [] { faiss::InterruptCallback::instance.reset(new Ask); });
    asked = stop;
    with = context;
}
