/* See faiss_rows.h. An index is unwrapped from the outside in:
 *
 *     IndexIDMap (its ids)  >  IndexPreTransform (undone behind)  >  IndexIVF (list and offset)  |  any other (by number)
 *
 * Files are not to be trusted: FAISS checks that a file does not end early, and little else. What reconstruction would
 * read without looking (codes, lists, trained ranges, matrices) is compared with the sizes that the index claims, and
 * kinds that are not checked here are refused. So are those that give back something else than vectors near the ones
 * they were given (LSH keeps signs). What remains to trust is FAISS's reading itself, which sets aside the memory that
 * a file asks for.
 */
#include "faiss_rows.h"

#include <faiss/Index.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexFlatCodes.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexNSG.h>
#include <faiss/IndexPQ.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/VectorTransform.h>
#include <faiss/impl/FaissException.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <vector>

struct pd_faiss_rows {
    const faiss::IndexPreTransform *transform = nullptr;
    const faiss::IndexIVF *ivf = nullptr; /* the vectors are in its lists ... */
    const faiss::Index *plain = nullptr;  /* ... or here, by number: flat, SQ or PQ */
    std::vector<uint64_t> where;          /* of row i in ivf: list << 32 | offset */
    std::vector<int64_t> ids;
    mutable std::vector<float> inner; /* one vector before the transform is undone */
};

namespace
{

void require(bool good, const char *what)
{
    if (!good) throw std::runtime_error(std::string("the file contradicts itself: ") + what);
}

size_t trained_size(const faiss::ScalarQuantizer &sq)
{
    using SQ = faiss::ScalarQuantizer;
    switch (sq.qtype) {
    case SQ::QT_8bit:
    case SQ::QT_4bit:
    case SQ::QT_6bit:
        return 2 * sq.d;
    case SQ::QT_8bit_uniform:
    case SQ::QT_4bit_uniform:
        return 2;
    case SQ::QT_fp16:
    case SQ::QT_8bit_direct:
        return 0;
    default:
        throw std::runtime_error("its scalar quantizer is of an unknown type");
    }
}

void check_quantizer(const faiss::ScalarQuantizer &sq, int d, size_t code_size)
{
    require(d >= 0 && sq.d == (size_t)d && sq.code_size == code_size,
            "the scalar quantizer has another width");
    require(sq.trained.size() >= trained_size(sq), "the scalar quantizer lacks its ranges");
}

void check_quantizer(const faiss::ProductQuantizer &pq, int d, size_t code_size)
{
    size_t needed;
    require(d >= 0 && pq.d == (size_t)d && pq.M > 0 && pq.M * pq.dsub == pq.d && pq.code_size == code_size,
            "the product quantizer has another width");
    require(pq.nbits > 0 && pq.nbits <= 24 && pq.ksub == (size_t)1 << pq.nbits &&
                !__builtin_mul_overflow(pq.ksub, pq.d, &needed) && pq.centroids.size() >= needed,
            "the product quantizer lacks its centroids");
}

[[noreturn]] void refuse_kind(const faiss::Index *index)
{
    throw std::runtime_error("an index of kind " + faiss::demangle_cpp_symbol(typeid(*index).name()) +
                             " does not keep them in a way that is read");
}

/* Where the vectors of an index without lists are, by number. */
const faiss::Index *check_plain(const faiss::Index *index)
{
    const faiss::Index *behind = nullptr;
    if (auto hnsw = dynamic_cast<const faiss::IndexHNSW *>(index)) behind = hnsw->storage;
    if (auto nsg = dynamic_cast<const faiss::IndexNSG *>(index)) behind = nsg->storage;
    if (auto refine = dynamic_cast<const faiss::IndexRefine *>(index)) behind = refine->refine_index;
    if (behind && behind != index) {
        require(behind->d == index->d && behind->ntotal == index->ntotal,
                "an index and its vectors differ in size");
        return check_plain(behind);
    }
    auto codes = dynamic_cast<const faiss::IndexFlatCodes *>(index);
    if (!codes) refuse_kind(index);
    size_t needed;
    require(index->d > 0 && index->ntotal >= 0, "its size is negative");
    require(!__builtin_mul_overflow((size_t)index->ntotal, codes->code_size, &needed) &&
                codes->codes.size() >= needed,
            "it has fewer codes than rows");
    if (dynamic_cast<const faiss::IndexFlat *>(index))
        require(codes->code_size == sizeof(float) * (size_t)index->d, "its codes have another width");
    else if (auto scalar = dynamic_cast<const faiss::IndexScalarQuantizer *>(index))
        check_quantizer(scalar->sq, index->d, codes->code_size);
    else if (auto product = dynamic_cast<const faiss::IndexPQ *>(index))
        check_quantizer(product->pq, index->d, codes->code_size);
    else
        refuse_kind(index);
    return index;
}

void check_ivf(const faiss::IndexIVF *ivf)
{
    /* Lists in memory only: a file may name another one to hold its lists, and that is not ours to open. */
    auto lists = dynamic_cast<const faiss::ArrayInvertedLists *>(ivf->invlists);
    if (!lists) throw std::runtime_error("its lists are not in the file, or packed");
    require(lists->nlist == ivf->nlist && lists->code_size == ivf->code_size,
            "its lists differ from it in number or width");
    require(ivf->quantizer && ivf->quantizer->d == ivf->d && ivf->quantizer->ntotal >= 0 &&
                (size_t)ivf->quantizer->ntotal >= ivf->nlist,
            "its coarse quantizer has another width, or fewer centroids than there are lists");
    auto flat = dynamic_cast<const faiss::IndexIVFFlat *>(ivf);
    auto scalar = dynamic_cast<const faiss::IndexIVFScalarQuantizer *>(ivf);
    auto product = dynamic_cast<const faiss::IndexIVFPQ *>(ivf);
    if (flat)
        require(ivf->code_size == sizeof(float) * (size_t)ivf->d, "its codes have another width");
    else if (scalar)
        check_quantizer(scalar->sq, ivf->d, ivf->code_size);
    else if (product)
        check_quantizer(product->pq, ivf->d, ivf->code_size);
    else
        refuse_kind(ivf);
    if (!flat) check_plain(ivf->quantizer); /* residuals are added to its centroids */
}

void check_transform(const faiss::IndexPreTransform *transform)
{
    int d = transform->d;
    for (const faiss::VectorTransform *step : transform->chain) {
        require(step && d > 0 && step->d_in == d && step->d_out > 0, "its transforms do not fit one another");
        d = step->d_out;
        auto linear = dynamic_cast<const faiss::LinearTransform *>(step);
        if (!linear) throw std::runtime_error("it transforms its vectors in a way that is not linear");
        require(linear->A.size() == (size_t)step->d_in * (size_t)step->d_out &&
                    (!linear->have_bias || linear->b.size() >= (size_t)step->d_out),
                "a transform lacks its matrix");
        /* FAISS undoes a transform by its transpose, and for whitened PCA says nothing though that is wrong. */
        faiss::LinearTransform copy(*linear);
        copy.set_is_orthonormal();
        if (!copy.is_orthonormal)
            throw std::runtime_error("its transform is no rotation and cannot be undone");
    }
    require(transform->index && transform->index->d == d, "its transforms do not fit the index behind them");
}

/* Row i is id i where the ids are 0 .. n - 1 in some order, and the i-th entry of the lists where they are not. */
void locate(pd_faiss_rows *rows, uint64_t total)
{
    std::vector<int64_t> ids;
    std::vector<uint64_t> where;
    ids.reserve(total);
    where.reserve(total);
    const faiss::InvertedLists *lists = rows->ivf->invlists;
    for (size_t list = 0; list < lists->nlist; list++) {
        size_t size = lists->list_size(list);
        require(size <= total - where.size(), "its lists hold more rows than it says");
        faiss::InvertedLists::ScopedIds held(lists, list);
        for (size_t offset = 0; offset < size; offset++) {
            where.push_back((uint64_t)list << 32 | offset);
            ids.push_back(held[offset]);
        }
    }
    require(where.size() == total, "its lists hold fewer rows than it says");
    std::vector<uint64_t> by_id(total, UINT64_MAX);
    bool plain = true;
    for (uint64_t i = 0; plain && i < total; i++) {
        plain = ids[i] >= 0 && (uint64_t)ids[i] < total && by_id[ids[i]] == UINT64_MAX;
        if (plain) by_id[ids[i]] = where[i];
    }
    rows->where = plain ? std::move(by_id) : std::move(where);
    if (!plain) rows->ids = std::move(ids);
}

std::unique_ptr<pd_faiss_rows> unwrap(const faiss::Index *index)
{
    auto rows = std::make_unique<pd_faiss_rows>();
    uint64_t total = (uint64_t)index->ntotal;
    require(index->ntotal >= 0 && index->d > 0, "its size is negative");
    const faiss::IndexIDMap *map = dynamic_cast<const faiss::IndexIDMap *>(index);
    if (map) {
        require(map->id_map.size() == total, "it maps another number of ids than it has rows");
        require(map->index && map->index->d == index->d && map->index->ntotal == index->ntotal,
                "the id map and the index behind it differ in size");
        index = map->index;
    }
    rows->transform = dynamic_cast<const faiss::IndexPreTransform *>(index);
    if (rows->transform) {
        check_transform(rows->transform);
        require(rows->transform->index->ntotal == index->ntotal,
                "the index behind its transforms differs in size");
        index = rows->transform->index;
        rows->inner.resize((size_t)index->d);
    }
    rows->ivf = dynamic_cast<const faiss::IndexIVF *>(index);
    if (rows->ivf) {
        check_ivf(rows->ivf);
        locate(rows.get(), total);
    } else {
        rows->plain = check_plain(index);
    }
    if (map) {
        if (!rows->ids.empty()) throw std::runtime_error("it maps ids twice");
        rows->ids.assign(map->id_map.begin(), map->id_map.end());
    }
    return rows;
}

void get_row(const pd_faiss_rows *rows, uint64_t row, float *out)
{
    float *to = rows->transform ? rows->inner.data() : out;
    if (rows->ivf)
        rows->ivf->reconstruct_from_offset((int64_t)(rows->where[row] >> 32),
                                           (int64_t)(uint32_t)rows->where[row], to);
    else
        rows->plain->reconstruct((faiss::Index::idx_t)row, to);
    if (rows->transform) rows->transform->reverse_chain(1, to, out);
}

} // namespace

pd_faiss_rows *pd_faiss_rows_new(const FaissIndex *index, char *why, size_t size)
{
    try {
        auto rows = unwrap(reinterpret_cast<const faiss::Index *>(index));
        return rows.release();
    } catch (const std::exception &e) {
        std::snprintf(why, size, "%s", e.what());
    } catch (...) {
        std::snprintf(why, size, "an unknown exception");
    }
    return nullptr;
}

const int64_t *pd_faiss_rows_ids(const pd_faiss_rows *rows)
{
    return rows->ids.empty() ? nullptr : rows->ids.data();
}

int pd_faiss_rows_get(const pd_faiss_rows *rows, uint64_t first, uint64_t count, float *out, char *why,
                      size_t size)
{
    const faiss::Index *whole = rows->transform ? rows->transform : rows->ivf ? rows->ivf : rows->plain;
    try {
        for (uint64_t i = 0; i < count; i++)
            get_row(rows, first + i, out + i * (size_t)whole->d);
        return 0;
    } catch (const std::exception &e) {
        std::snprintf(why, size, "%s", e.what());
    } catch (...) {
        std::snprintf(why, size, "an unknown exception");
    }
    return -1;
}

void pd_faiss_rows_free(pd_faiss_rows *rows)
{
    delete rows;
}
