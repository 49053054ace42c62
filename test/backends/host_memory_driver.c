// A CUDA driver for tests, with "device" memory in host memory and no GPU behind it.
//
// The real pycuda and the real cuda-python load it under the driver's own name, libcuda.so.1, so that
// the code that moves images and heads runs as it does on a robot. It is stricter than a real driver:
//
//   - Device addresses cannot be dereferenced by the CPU. Every range that is used must lie within
//     one living allocation; guard bytes around each allocation must be untouched when it is freed;
//     freed memory is never handed out again.
//   - Work on a stream is done as late as CUDA allows: when the stream is synchronised. So a
//     missing wait reads old bytes, and a buffer that is freed or reused too early is detected.
//   - Asynchronous copies must use pinned memory. Calls need a current context, in their own thread.
//   - Device memory has a size, and any call can be told to fail.
//
// host_driver_violations() counts and describes wrong calls; host_driver_alive() counts what was
// not freed. Only what our backend uses, and what pycuda and cuda-python need to be imported, works
// here; the rest of pycuda's symbols exist and return NOT_SUPPORTED.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct Context *CUcontext;
typedef struct Stream *CUstream;
typedef struct Graph *CUgraph;
typedef struct GraphExec *CUgraphExec;
typedef void (*CUhostFn)(void *);

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_FAILED = 719,
  NOT_SUPPORTED = 801,
  STREAM_CAPTURE_UNSUPPORTED = 900,
};

#define EXPORT __attribute__((visibility("default")))
#define DEVICE_BASE 0x6000000000000000ULL // added to host addresses: no CPU can dereference it
#define GUARD 64
#define GUARD_BYTE 0xA5
#define FREED_BYTE 0xDD
#define MAX_ALLOCATIONS 65536
#define MAX_FAULTS 32
#define MAX_DEPTH 16

// State

struct Context {
  int retained;
};

typedef struct {
  char *data;
  size_t size;
  int alive, pinned;
} Allocation;

typedef enum { TO_DEVICE, TO_HOST, CALL } Kind;

typedef struct Work {
  struct Work *next;
  Kind kind;
  void *host;
  CUdeviceptr device;
  size_t size;
  CUhostFn function;
} Work;

struct Graph {
  Work *first;
};

struct GraphExec {
  Work *first;
};

struct Stream {
  Work *first;
  struct Graph *capturing;
  int alive;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int initialized, devices = 0, lost;
static size_t memory_size = 1ULL << 30, memory_used;
static struct Context primary;
static Allocation allocations[MAX_ALLOCATIONS];
static int num_allocations;
#define MAX_STREAMS 4096
static CUstream streams[MAX_STREAMS];
static int num_streams;
static int alive_streams, alive_graphs, alive_execs;
static size_t bytes_copied;
static int violations;
static char violation[256];
static struct {
  char name[64];
  int after;
  CUresult result;
} faults[MAX_FAULTS];
static __thread CUcontext stack[MAX_DEPTH];
static __thread int depth;

static void violate(const char *what, const char *where) {
  if (!violations++) snprintf(violation, sizeof violation, "%s: %s", where, what);
}

// What a call does before anything else: a planned failure, a lost device, a missing context.

static CUresult enter(const char *name, int needs_context) {
  CUresult result = SUCCESS;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < MAX_FAULTS && !result; i++)
    if (!strcmp(faults[i].name, name) && faults[i].after-- == 0) {
      result = faults[i].result;
      faults[i].name[0] = 0;
      if (result == LAUNCH_FAILED) lost = 1; // such errors stay
    }
  if (!result && lost) result = LAUNCH_FAILED;
  if (!result && !initialized) result = NOT_INITIALIZED;
  if (!result && needs_context && (!depth || !stack[depth - 1]->retained)) result = INVALID_CONTEXT;
  pthread_mutex_unlock(&lock);
  return result;
}

#define ENTER(needs_context)                                     \
  do {                                                           \
    CUresult entered = enter(__func__, needs_context);           \
    if (entered) return entered;                                 \
  } while (0)

// Memory

static int within(const Allocation *a, const char *data, size_t size) {
  return data >= a->data && data + size <= a->data + a->size;
}

// The living allocation that holds a range, or NULL with the violation counted.
static Allocation *holding(char *data, size_t size, int pinned, const char *where) {
  for (int i = 0; i < num_allocations; i++) {
    Allocation *a = &allocations[i];
    if (a->pinned != pinned || data < a->data - GUARD || data >= a->data + a->size + GUARD) continue;
    if (!a->alive) {
      violate("memory that was freed", where);
      return NULL;
    }
    if (within(a, data, size)) return a;
    violate("past the end of an allocation", where);
    return NULL;
  }
  violate(pinned ? "host memory that is not pinned" : "not a device address", where);
  return NULL;
}

static CUresult allocate(size_t size, int pinned, char **data) {
  if (!size) return INVALID_VALUE;
  if (!pinned && memory_used + size > memory_size) return OUT_OF_MEMORY;
  if (num_allocations == MAX_ALLOCATIONS) return OUT_OF_MEMORY;
  char *block;
  if (posix_memalign((void **)&block, 2 * GUARD, size + 4 * GUARD)) return OUT_OF_MEMORY;
  memset(block, GUARD_BYTE, size + 4 * GUARD);
  *data = block + 2 * GUARD;
  allocations[num_allocations++] = (Allocation){*data, size, 1, pinned};
  if (!pinned) memory_used += size;
  return SUCCESS;
}

static int pending(const Allocation *a);

static CUresult release(char *data, int pinned, const char *where) {
  for (int i = 0; i < num_allocations; i++) {
    Allocation *a = &allocations[i];
    if (a->data != data || a->pinned != pinned) continue;
    if (!a->alive) {
      violate("freed twice", where);
      return INVALID_VALUE;
    }
    for (int g = 1; g <= GUARD; g++)
      if ((unsigned char)data[-g] != GUARD_BYTE || (unsigned char)data[a->size + g - 1] != GUARD_BYTE) {
        violate("bytes beside the allocation were written", where);
        break;
      }
    if (pending(a)) violate("freed while a stream still uses it", where);
    a->alive = 0;
    memset(data, FREED_BYTE, a->size); // kept, so that a stale address is recognised
    if (!pinned) memory_used -= a->size;
    return SUCCESS;
  }
  violate("not an allocation", where);
  return INVALID_VALUE;
}

// Streams

static int pending(const Allocation *a) {
  for (int s = 0; s < num_streams; s++)
    for (Work *w = streams[s]->alive ? streams[s]->first : NULL; w; w = w->next) {
      if (w->kind == CALL) continue;
      char *used = a->pinned ? w->host : (char *)(w->device - DEVICE_BASE);
      if (within(a, used, w->size)) return 1;
    }
  return 0;
}

static void append(Work **first, Work work) {
  while (*first) first = &(*first)->next;
  *first = malloc(sizeof(Work));
  work.next = NULL;
  **first = work;
}

static void forget(Work *work) {
  while (work) {
    Work *next = work->next;
    free(work);
    work = next;
  }
}

static CUresult perform(const Work *w) {
  if (w->kind == CALL) {
    w->function(w->host);
    return SUCCESS;
  }
  char *device = (char *)(w->device - DEVICE_BASE);
  pthread_mutex_lock(&lock);
  int good = holding(device, w->size, 0, "copy on a stream") && holding(w->host, w->size, 1, "copy on a stream");
  pthread_mutex_unlock(&lock);
  if (!good) {
    lost = 1;
    return ILLEGAL_ADDRESS;
  }
  bytes_copied += w->size;
  if (w->kind == TO_DEVICE)
    memcpy(device, w->host, w->size);
  else
    memcpy(w->host, device, w->size);
  return SUCCESS;
}

static CUresult run(CUstream stream) {
  CUresult result = SUCCESS;
  Work *first = stream->first;
  stream->first = NULL;
  for (Work *w = first; w && !result; w = w->next) result = perform(w);
  forget(first);
  return result;
}

static CUresult enqueue(CUstream stream, Work work) {
  if (!stream || !stream->alive) return INVALID_HANDLE;
  if (work.kind != CALL) {
    const char *where = work.kind == TO_DEVICE ? "cuMemcpyHtoDAsync" : "cuMemcpyDtoHAsync";
    pthread_mutex_lock(&lock);
    int good = holding((char *)(work.device - DEVICE_BASE), work.size, 0, where) &&
               holding(work.host, work.size, 1, where);
    pthread_mutex_unlock(&lock);
    if (!good) return INVALID_VALUE;
  }
  append(stream->capturing ? &stream->capturing->first : &stream->first, work);
  return SUCCESS;
}

// How many devices there are from the start; in processes that no test can reach into.
__attribute__((constructor)) static void start(void) {
  const char *count = getenv("HOST_DRIVER_DEVICES");
  if (count) devices = atoi(count);
}

// The driver's functions

EXPORT CUresult cuInit(unsigned flags) {
  if (!devices) return NO_DEVICE;
  initialized = 1;
  ENTER(0);
  return SUCCESS;
}

EXPORT CUresult cuDriverGetVersion(int *version) {
  *version = 13000;
  return SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *count) {
  ENTER(0);
  *count = devices;
  return SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  ENTER(0);
  if (ordinal < 0 || ordinal >= devices) return INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
  ENTER(0);
  snprintf(name, length, "host memory, no GPU");
  return SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
  ENTER(0);
  *value = attribute == 75 ? 8 : attribute == 76 ? 6 : 0; // compute capability 8.6
  return SUCCESS;
}

EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
  ENTER(0);
  *major = 8, *minor = 6;
  return SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *size, CUdevice device) {
  ENTER(0);
  *size = memory_size;
  return SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  ENTER(0);
  primary.retained++;
  *context = &primary;
  return SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  // Not refused by a lost device: cleaning up must work.
  if (!primary.retained) {
    violate("released more often than retained", __func__);
    return INVALID_CONTEXT;
  }
  if (!--primary.retained) {
    // Releasing the context frees everything that was created in it.
    pthread_mutex_lock(&lock);
    for (int i = 0; i < num_allocations; i++) {
      if (allocations[i].alive && !lost) violate("an allocation outlives the context", __func__);
      allocations[i].alive = 0;
    }
    for (int s = 0; s < num_streams; s++) {
      if (streams[s]->alive && !lost) violate("a stream outlives the context", __func__);
      streams[s]->alive = 0;
    }
    alive_streams = alive_graphs = alive_execs = memory_used = lost = 0;
    pthread_mutex_unlock(&lock);
  }
  return SUCCESS;
}

EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context) {
  ENTER(0);
  if (!context || !context->retained || depth == MAX_DEPTH) return INVALID_CONTEXT;
  stack[depth++] = context;
  return SUCCESS;
}

EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  if (!depth) return INVALID_CONTEXT;
  depth--;
  if (context) *context = stack[depth];
  return SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *context) {
  *context = depth ? stack[depth - 1] : NULL;
  return SUCCESS;
}

EXPORT CUresult cuCtxGetDevice(CUdevice *device) {
  ENTER(1);
  *device = 0;
  return SUCCESS;
}

EXPORT CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version) {
  *version = 3020;
  return SUCCESS;
}

EXPORT CUresult cuCtxSynchronize(void) {
  ENTER(1);
  for (int s = 0; s < num_streams; s++)
    if (streams[s]->alive) {
      CUresult result = run(streams[s]);
      if (result) return result;
    }
  return SUCCESS;
}

EXPORT CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
  ENTER(1);
  *available = memory_size - memory_used;
  *total = memory_size;
  return SUCCESS;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t size) {
  ENTER(1);
  char *data;
  pthread_mutex_lock(&lock);
  CUresult result = allocate(size, 0, &data);
  pthread_mutex_unlock(&lock);
  if (!result) *pointer = (CUdeviceptr)data + DEVICE_BASE;
  return result;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer) {
  ENTER(1);
  pthread_mutex_lock(&lock);
  CUresult result = release((char *)(pointer - DEVICE_BASE), 0, __func__);
  pthread_mutex_unlock(&lock);
  return result;
}

EXPORT CUresult cuMemHostAlloc(void **pointer, size_t size, unsigned flags) {
  ENTER(1);
  pthread_mutex_lock(&lock);
  CUresult result = allocate(size, 1, (char **)pointer);
  pthread_mutex_unlock(&lock);
  return result;
}

EXPORT CUresult cuMemFreeHost(void *pointer) {
  ENTER(1);
  pthread_mutex_lock(&lock);
  CUresult result = release(pointer, 1, __func__);
  pthread_mutex_unlock(&lock);
  return result;
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
  ENTER(1);
  return enqueue(stream, (Work){NULL, TO_DEVICE, (void *)from, to, size, NULL});
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
  ENTER(1);
  return enqueue(stream, (Work){NULL, TO_HOST, to, from, size, NULL});
}

EXPORT CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *data) {
  ENTER(1);
  return enqueue(stream, (Work){NULL, CALL, data, 0, 0, function});
}

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  ENTER(1);
  pthread_mutex_lock(&lock);
  *stream = calloc(1, sizeof **stream);
  (*stream)->alive = 1;
  streams[num_streams++ % MAX_STREAMS] = *stream;
  alive_streams++;
  pthread_mutex_unlock(&lock);
  return SUCCESS;
}

EXPORT CUresult cuStreamDestroy_v2(CUstream stream) {
  ENTER(1);
  if (!stream || !stream->alive) {
    violate("a stream that was destroyed", __func__);
    return INVALID_HANDLE;
  }
  CUresult result = run(stream);
  stream->alive = 0;
  alive_streams--;
  return result;
}

EXPORT CUresult cuStreamSynchronize(CUstream stream) {
  ENTER(1);
  if (!stream || !stream->alive) return INVALID_HANDLE;
  if (stream->capturing) return STREAM_CAPTURE_UNSUPPORTED;
  return run(stream);
}

EXPORT CUresult cuStreamQuery(CUstream stream) {
  ENTER(1);
  if (!stream || !stream->alive) return INVALID_HANDLE;
  return stream->first ? NOT_READY : SUCCESS;
}

EXPORT CUresult cuStreamBeginCapture_v2(CUstream stream, int mode) {
  ENTER(1);
  if (!stream || !stream->alive || stream->capturing) return INVALID_HANDLE;
  stream->capturing = calloc(1, sizeof(struct Graph));
  alive_graphs++;
  return SUCCESS;
}

EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  ENTER(1);
  if (!stream || !stream->capturing) return INVALID_VALUE;
  *graph = stream->capturing;
  stream->capturing = NULL;
  return SUCCESS;
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
  ENTER(1);
  *exec = calloc(1, sizeof **exec);
  for (Work *w = graph->first; w; w = w->next) append(&(*exec)->first, *w);
  alive_execs++;
  return SUCCESS;
}

EXPORT CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
  ENTER(1);
  for (Work *w = exec->first; w; w = w->next) {
    CUresult result = enqueue(stream, *w);
    if (result) return result;
  }
  return SUCCESS;
}

EXPORT CUresult cuGraphDestroy(CUgraph graph) {
  ENTER(1);
  forget(graph->first);
  free(graph);
  alive_graphs--;
  return SUCCESS;
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec exec) {
  ENTER(1);
  forget(exec->first);
  free(exec);
  alive_execs--;
  return SUCCESS;
}

static const struct {
  CUresult code;
  const char *name, *text;
} errors[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
};

static const char *described(CUresult code, int text) {
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
    if (errors[i].code == code) return text ? errors[i].text : errors[i].name;
  return "unknown error";
}

EXPORT CUresult cuGetErrorString(CUresult code, const char **text) {
  *text = described(code, 1);
  return SUCCESS;
}

EXPORT CUresult cuGetErrorName(CUresult code, const char **name) {
  *name = described(code, 0);
  return SUCCESS;
}

// Symbols that pycuda needs to load. Nothing of ours calls them.

#define PYCUDA_SYMBOLS(X) \
  X(cuArray3DCreate_v2) X(cuArray3DGetDescriptor_v2) X(cuArrayCreate_v2) X(cuArrayDestroy) \
  X(cuArrayGetDescriptor_v2) X(cuCtxAttach) X(cuCtxCreate_v2) X(cuCtxCreate_v4) X(cuCtxDetach) \
  X(cuCtxDisablePeerAccess) X(cuCtxEnablePeerAccess) X(cuCtxGetCacheConfig) X(cuCtxGetLimit) \
  X(cuCtxGetSharedMemConfig) X(cuCtxSetCacheConfig) X(cuCtxSetLimit) X(cuCtxSetSharedMemConfig) \
  X(cuDeviceCanAccessPeer) X(cuDeviceGetByPCIBusId) X(cuDeviceGetPCIBusId) X(cuEventCreate) \
  X(cuEventDestroy_v2) X(cuEventElapsedTime) X(cuEventElapsedTime_v2) X(cuEventQuery) \
  X(cuEventRecord) X(cuEventSynchronize) X(cuFuncGetAttribute) X(cuFuncSetAttribute) \
  X(cuFuncSetBlockShape) X(cuFuncSetCacheConfig) X(cuFuncSetSharedSize) X(cuIpcCloseMemHandle) \
  X(cuIpcGetEventHandle) X(cuIpcGetMemHandle) X(cuIpcOpenEventHandle) X(cuIpcOpenMemHandle_v2) \
  X(cuLaunch) X(cuLaunchGrid) X(cuLaunchGridAsync) X(cuLaunchKernel) X(cuLinkAddData_v2) \
  X(cuLinkAddFile_v2) X(cuLinkComplete) X(cuLinkCreate_v2) X(cuLinkDestroy) X(cuMemAllocManaged) \
  X(cuMemAllocPitch_v2) X(cuMemGetAddressRange_v2) X(cuMemHostGetDevicePointer_v2) \
  X(cuMemHostGetFlags) X(cuMemHostRegister_v2) X(cuMemHostUnregister) X(cuMemcpy2DAsync_v2) \
  X(cuMemcpy2DUnaligned_v2) X(cuMemcpy2D_v2) X(cuMemcpy3DAsync_v2) X(cuMemcpy3DPeer) \
  X(cuMemcpy3DPeerAsync) X(cuMemcpy3D_v2) X(cuMemcpyAtoA_v2) X(cuMemcpyAtoD_v2) X(cuMemcpyAtoH_v2) \
  X(cuMemcpyDtoA_v2) X(cuMemcpyDtoDAsync_v2) X(cuMemcpyDtoD_v2) X(cuMemcpyDtoH_v2) \
  X(cuMemcpyHtoA_v2) X(cuMemcpyHtoD_v2) X(cuMemcpyPeer) X(cuMemcpyPeerAsync) X(cuMemsetD16Async) \
  X(cuMemsetD16_v2) X(cuMemsetD2D16Async) X(cuMemsetD2D16_v2) X(cuMemsetD2D32Async) \
  X(cuMemsetD2D32_v2) X(cuMemsetD2D8Async) X(cuMemsetD2D8_v2) X(cuMemsetD32Async) \
  X(cuMemsetD32_v2) X(cuMemsetD8Async) X(cuMemsetD8_v2) X(cuModuleGetFunction) \
  X(cuModuleGetGlobal_v2) X(cuModuleGetSurfRef) X(cuModuleGetTexRef) X(cuModuleLoad) \
  X(cuModuleLoadData) X(cuModuleLoadDataEx) X(cuModuleUnload) X(cuParamSetSize) \
  X(cuParamSetTexRef) X(cuParamSetf) X(cuParamSeti) X(cuParamSetv) X(cuProfilerInitialize) \
  X(cuProfilerStart) X(cuProfilerStop) X(cuStreamAttachMemAsync) X(cuStreamWaitEvent) \
  X(cuSurfRefGetArray) X(cuSurfRefSetArray) X(cuTexRefCreate) X(cuTexRefDestroy) \
  X(cuTexRefGetAddressMode) X(cuTexRefGetAddress_v2) X(cuTexRefGetArray) X(cuTexRefGetFilterMode) \
  X(cuTexRefGetFlags) X(cuTexRefGetFormat) X(cuTexRefSetAddress2D_v3) X(cuTexRefSetAddressMode) \
  X(cuTexRefSetAddress_v2) X(cuTexRefSetArray) X(cuTexRefSetFilterMode) X(cuTexRefSetFlags) \
  X(cuTexRefSetFormat)

#define UNSUPPORTED(name)                                     \
  EXPORT CUresult name(void) {                                \
    violate("this driver does not have it", #name);           \
    return NOT_SUPPORTED;                                     \
  }
PYCUDA_SYMBOLS(UNSUPPORTED)

// cuda-python asks for each function by its name without a version.
EXPORT CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
  static const char *suffixes[] = {"_v4", "_v3", "_v2", ""};
  Dl_info self;
  dladdr((void *)cuInit, &self);
  void *library = dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  *function = NULL;
  for (int i = 0; i < 4 && !*function; i++) {
    char full[128];
    snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
    *function = dlsym(library, full);
  }
  dlclose(library);
  if (status) *status = *function ? 0 : 1;
  return *function ? SUCCESS : NOT_FOUND;
}

EXPORT CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}

// For the tests

EXPORT void host_driver_reset(int device_count, size_t memory) {
  devices = device_count;
  memory_size = memory;
  lost = 0;
  bytes_copied = 0;
  violations = 0;
  violation[0] = 0;
  memset(faults, 0, sizeof faults);
}

EXPORT void host_driver_fail(const char *name, int after, CUresult result) {
  for (int i = 0; i < MAX_FAULTS; i++)
    if (!faults[i].name[0]) {
      snprintf(faults[i].name, sizeof faults[i].name, "%s", name);
      faults[i].after = after;
      faults[i].result = result;
      return;
    }
}

EXPORT int host_driver_violations(const char **first) {
  *first = violation;
  return violations;
}

// Device allocations, pinned allocations, streams, graphs, executable graphs, retained contexts,
// and contexts on this thread's stack.
EXPORT void host_driver_alive(int counts[7]) {
  memset(counts, 0, 7 * sizeof *counts);
  for (int i = 0; i < num_allocations; i++)
    if (allocations[i].alive) counts[allocations[i].pinned]++;
  counts[2] = alive_streams;
  counts[3] = alive_graphs;
  counts[4] = alive_execs;
  counts[5] = primary.retained;
  counts[6] = depth;
}

EXPORT size_t host_driver_copied(void) { return bytes_copied; }

// The host address of a range of device memory, for code that plays the GPU; NULL if not allocated.
EXPORT void *host_driver_memory(CUdeviceptr pointer, size_t size) {
  pthread_mutex_lock(&lock);
  char *data = (char *)(pointer - DEVICE_BASE);
  Allocation *a = holding(data, size, 0, "execution");
  pthread_mutex_unlock(&lock);
  return a ? data : NULL;
}
