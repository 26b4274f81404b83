/* The part of FAISS's C API that we call, for a libfaiss without it.
 *
 * Debian's package ships the C API's headers but exports none of its functions; where a real libfaiss_c is found this
 * file is not built. Signatures are checked by the compiler against FAISS's own headers, so a call means the same with
 * either. No exception leaves a function: it is kept by thread for faiss_get_last_error().
 */
#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/IndexFlat_c.h>
#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>

#include <faiss/AutoTune.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexIVF.h>
#include <faiss/impl/FaissException.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>

#include <cstring>
#include <exception>
#include <memory>
#include <string>

static thread_local std::string last_error;

template <class F> static int guarded(F body)
{
    try {
        body();
        return OK;
    } catch (const faiss::FaissException &e) {
        last_error = e.what();
        return FAISS_EXCEPT;
    } catch (const std::exception &e) {
        last_error = e.what();
        return STD_EXCEPT;
    } catch (...) {
        last_error = "an unknown exception";
        return UNKNOWN_EXCEPT;
    }
}

static faiss::Index *in(FaissIndex *index)
{
    return reinterpret_cast<faiss::Index *>(index);
}

static const faiss::Index *in(const FaissIndex *index)
{
    return reinterpret_cast<const faiss::Index *>(index);
}

static FaissIndex *out(faiss::Index *index)
{
    return reinterpret_cast<FaissIndex *>(index);
}

/* FaissIndexIVF is FaissIndex under another name, made by a dynamic_cast: the pointer is that of the derived object, whose
 * base comes first. */
static faiss::IndexIVF *ivf(const FaissIndexIVF *index)
{
    return reinterpret_cast<faiss::IndexIVF *>(const_cast<FaissIndexIVF *>(index));
}

const char *faiss_get_last_error()
{
    return last_error.c_str();
}

/* ---- Index ---- */

void faiss_Index_free(FaissIndex *index)
{
    delete in(index);
}

int faiss_Index_d(const FaissIndex *index)
{
    return in(index)->d;
}

int faiss_Index_is_trained(const FaissIndex *index)
{
    return in(index)->is_trained;
}

idx_t faiss_Index_ntotal(const FaissIndex *index)
{
    return in(index)->ntotal;
}

FaissMetricType faiss_Index_metric_type(const FaissIndex *index)
{
    return static_cast<FaissMetricType>(in(index)->metric_type);
}

int faiss_Index_train(FaissIndex *index, idx_t n, const float *x)
{
    return guarded([&] { in(index)->train(n, x); });
}

int faiss_Index_add(FaissIndex *index, idx_t n, const float *x)
{
    return guarded([&] { in(index)->add(n, x); });
}

int faiss_Index_add_with_ids(FaissIndex *index, idx_t n, const float *x, const idx_t *xids)
{
    return guarded([&] { in(index)->add_with_ids(n, x, xids); });
}

int faiss_Index_search(const FaissIndex *index, idx_t n, const float *x, idx_t k, float *distances,
                       idx_t *labels)
{
    return guarded([&] { in(index)->search(n, x, k, distances, labels); });
}

int faiss_Index_reconstruct(const FaissIndex *index, idx_t key, float *recons)
{
    return guarded([&] { in(index)->reconstruct(key, recons); });
}

int faiss_Index_reconstruct_n(const FaissIndex *index, idx_t i0, idx_t ni, float *recons)
{
    return guarded([&] {
        /* FAISS's default for this reconstructs in an OpenMP region, which no exception may leave. Inverted lists
         * have an implementation of their own; of the others the first vector is tried outside of it. */
        if (ni > 0 && !dynamic_cast<const faiss::IndexIVF *>(in(index))) in(index)->reconstruct(i0, recons);
        in(index)->reconstruct_n(i0, ni, recons);
    });
}

int faiss_index_factory(FaissIndex **p_index, int d, const char *description, FaissMetricType metric)
{
    return guarded([&] {
        *p_index = out(faiss::index_factory(d, description, static_cast<faiss::MetricType>(metric)));
    });
}

int faiss_write_index_fname(const FaissIndex *index, const char *fname)
{
    return guarded([&] { faiss::write_index(in(index), fname); });
}

int faiss_read_index_fname(const char *fname, int io_flags, FaissIndex **p_out)
{
    return guarded([&] { *p_out = out(faiss::read_index(fname, io_flags)); });
}

/* ---- flat ---- */

int faiss_IndexFlatIP_new_with(FaissIndexFlatIP **p_index, idx_t d)
{
    return guarded([&] { *p_index = out(new faiss::IndexFlatIP(d)); });
}

/* ---- inverted lists ---- */

FaissIndexIVF *faiss_IndexIVF_cast(FaissIndex *index)
{
    return reinterpret_cast<FaissIndexIVF *>(dynamic_cast<faiss::IndexIVF *>(in(index)));
}

size_t faiss_IndexIVF_nlist(const FaissIndexIVF *index)
{
    return ivf(index)->nlist;
}

size_t faiss_IndexIVF_nprobe(const FaissIndexIVF *index)
{
    return ivf(index)->nprobe;
}

int faiss_IndexIVF_make_direct_map(FaissIndexIVF *index, int new_maintain_direct_map)
{
    return guarded([&] { ivf(index)->make_direct_map(new_maintain_direct_map != 0); });
}

/* ---- parameters: "nprobe", "efSearch", "k_factor_rf", ... ---- */

int faiss_ParameterSpace_new(FaissParameterSpace **space)
{
    return guarded([&] { *space = reinterpret_cast<FaissParameterSpace *>(new faiss::ParameterSpace()); });
}

void faiss_ParameterSpace_free(FaissParameterSpace *space)
{
    delete reinterpret_cast<faiss::ParameterSpace *>(space);
}

int faiss_ParameterSpace_set_index_parameter(const FaissParameterSpace *space, FaissIndex *index,
                                             const char *name, double value)
{
    return guarded([&] {
        reinterpret_cast<const faiss::ParameterSpace *>(space)->set_index_parameter(in(index), name, value);
    });
}
