# FAISS by its C API: a real libfaiss_c where there is one, else the functions we call, behind the same headers.
# Linked by name, not through FAISS's CMake target: that one takes whatever BLAS the system's alternatives point at.
# libfaiss.a was compiled against GCC's OpenMP runtime, so that is the one, whichever compiler builds the rest.
find_library(PADOS_FAISS_LIBRARY faiss REQUIRED)
find_library(PADOS_FAISS_C_LIBRARY faiss_c)
find_library(PADOS_OPENBLAS_LIBRARY openblas REQUIRED)

add_library(pados_faiss STATIC faiss_rows.cpp)
target_include_directories(pados_faiss PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_definitions(pados_faiss PRIVATE NDEBUG)
if(PADOS_FAISS_C_LIBRARY)
  message(STATUS "FAISS C API: ${PADOS_FAISS_C_LIBRARY}")
  target_link_libraries(pados_faiss PUBLIC ${PADOS_FAISS_C_LIBRARY})
else()
  message(STATUS "FAISS C API: built here over ${PADOS_FAISS_LIBRARY}")
  target_sources(pados_faiss PRIVATE faiss_c.cpp)
endif()
target_link_libraries(pados_faiss
  PUBLIC ${PADOS_FAISS_LIBRARY} ${PADOS_OPENBLAS_LIBRARY} gomp stdc++ m
  PRIVATE pados_flags)

add_library(pados_readers STATIC
  reader.c read_npy.c read_bigann.c read_vecs.c read_hdf5.c read_faiss.c ids.c csv.c train.c)
target_include_directories(pados_readers PUBLIC ${CMAKE_CURRENT_SOURCE_DIR} PRIVATE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(pados_readers
  PUBLIC pados_kernels pados_faiss
  PRIVATE pados_flags ${HDF5_C_LIBRARIES} Threads::Threads)
