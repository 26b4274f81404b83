/* See faiss_rows.h. An index is unwrapped from the outside in:
 *
 *     IndexIDMap (its ids)  >  IndexPreTransform (undone behind)  >  IndexIVF (list and offset)  |  any other (by number)
 *
 * Files are not to be trusted: FAISS checks that a file does not end early, and little else. What reconstruction would
 * read without looking (codes, lists, trained ranges, matrices) is compared with the sizes that the index claims.
 */
#include "faiss_rows.h"

#include <faiss/Index.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexFlatCodes.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/VectorTransform.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <vector>

struct pd_faiss_rows {
    const faiss::IndexPreTransform *transform = nullptr;
    const faiss::IndexIVF *ivf = nullptr; /* the vectors are in its lists ... */
    const faiss::Index *plain = nullptr;  /* ... or here, by number */
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

void check_plain(const faiss::Index *index)
{
    require(index->d > 0 && index->ntotal >= 0, "its size is negative");
    if (auto hnsw = dynamic_cast<const faiss::IndexHNSW *>(index)) {
        require(hnsw->storage && hnsw->storage->d == index->d && hnsw->storage->ntotal == index->ntotal,
                "the graph and its vectors differ in size");
        check_plain(hnsw->storage);
        return;
    }
    auto codes = dynamic_cast<const faiss::IndexFlatCodes *>(index);
    if (!codes) return;
    size_t needed;
    require(!__builtin_mul_overflow((size_t)index->ntotal, codes->code_size, &needed) &&
                codes->codes.size() >= needed,
            "it has fewer codes than rows");
    if (dynamic_cast<const faiss::IndexFlat *>(index))
        require(codes->code_size == sizeof(float) * (size_t)index->d, "its codes have another width");
    if (auto scalar = dynamic_cast<const faiss::IndexScalarQuantizer *>(index))
        check_quantizer(scalar->sq, index->d, codes->code_size);
}

void check_ivf(const faiss::IndexIVF *ivf)
{
    require(ivf->invlists && ivf->quantizer, "it has no lists");
    require(ivf->d > 0 && ivf->quantizer->d == ivf->d, "the coarse quantizer has another width");
    require(ivf->invlists->nlist == ivf->nlist && ivf->quantizer->ntotal >= 0 &&
                (size_t)ivf->quantizer->ntotal >= ivf->nlist,
            "it has more lists than centroids");
    require(ivf->invlists->code_size == ivf->code_size, "its lists hold codes of another width");
    check_plain(ivf->quantizer);
    if (dynamic_cast<const faiss::IndexIVFFlat *>(ivf))
        require(ivf->code_size == sizeof(float) * (size_t)ivf->d, "its codes have another width");
    if (auto scalar = dynamic_cast<const faiss::IndexIVFScalarQuantizer *>(ivf))
        check_quantizer(scalar->sq, ivf->d, ivf->code_size);
}

void check_transform(const faiss::IndexPreTransform *transform)
{
    int d = transform->d;
    for (const faiss::VectorTransform *step : transform->chain) {
        require(step && d > 0 && step->d_in == d && step->d_out > 0, "its transforms do not fit one another");
        d = step->d_out;
        if (auto linear = dynamic_cast<const faiss::LinearTransform *>(step))
            require(linear->A.size() >= (size_t)step->d_in * (size_t)step->d_out &&
                        (!linear->have_bias || linear->b.size() >= (size_t)step->d_out),
                    "a transform lacks its matrix");
        else
            throw std::runtime_error("it transforms its vectors in a way that is not linear");
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
        check_plain(index);
        rows->plain = index;
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
