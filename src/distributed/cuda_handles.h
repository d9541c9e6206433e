// What PyTorch's CUDA headers need to know of cuBLAS, cuSPARSE and cuSOLVER in order to be read: the names of their handles
// and of their answers. Nothing of these libraries is called from here, and their packages are large. build.rs puts this file
// under the names that PyTorch includes, where the headers themselves are missing.
#pragma once

struct cublasContext;
typedef struct cublasContext* cublasHandle_t;
typedef struct cublasLtContext* cublasLtHandle_t;
typedef struct cusparseContext* cusparseHandle_t;
typedef struct cusolverDnContext* cusolverDnHandle_t;

typedef enum : int {} cublasStatus_t;
typedef enum : int {} cusparseStatus_t;
typedef enum : int { CUSOLVER_STATUS_EXECUTION_FAILED = 6 } cusolverStatus_t;
