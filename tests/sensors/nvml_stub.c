/* A driver library that answers from the text file $NVML_STUB_SCENARIO, read anew when it has changed.
 *
 * A line is "<device> <question> <answer>". The device is its index, or - for the driver itself. The
 * question is the function's name without its version, with /N for what it is passed after the device and
 * .field for one member of its answer; * stands for all of them. The last line that fits counts; without
 * one a question is not supported. An answer is
 *
 *     !CODE        an error
 *     ~MS ANSWER   ANSWER after so many milliseconds; ~hang ends when the scenario changes
 *     ANSWER       a number or a text
 *
 * "- requires V" is the version that the kernel's driver has: a library of another (-DVERSION=V) does not
 * fit it. "N xid X" is an error that is reported once. Calls are appended to $NVML_STUB_LOG if it is set:
 * only those that initialise, shut down or find a device, which are what wakes a GPU.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#ifndef VERSION
#define VERSION "1"
#endif

enum { SUCCESS = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10, MISMATCH = 18 };
enum { LINES = 2048, DEVICES = 64 };

typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu, compute; } Process;
typedef struct { void *device; unsigned long long type, data; unsigned gpu, compute; } Event;
typedef struct {
    unsigned id, scope;
    long long timestamp, latency;
    unsigned type;
    int result;
    union { double real; unsigned long long whole; } value;
} Field;

typedef struct { char device[16], question[80], answer[160]; } Line;

static Line lines[LINES];
static int line_count, initialised, events_taken;
static struct timespec read_at;
static off_t read_size;
static ino_t read_inode;

static void note(const char *event) {
    const char *path = getenv("NVML_STUB_LOG");
    FILE *log = path == NULL ? NULL : fopen(path, "a");
    if (log == NULL)
        return;
    fprintf(log, "%s\n", event);
    fclose(log);
}

static void load(void) {
    const char *path = getenv("NVML_STUB_SCENARIO");
    char text[512];
    struct stat now;
    if (path == NULL || stat(path, &now) != 0)
        abort();
    if (now.st_mtim.tv_sec == read_at.tv_sec && now.st_mtim.tv_nsec == read_at.tv_nsec &&
        now.st_size == read_size && now.st_ino == read_inode)
        return;
    FILE *scenario = fopen(path, "r");
    if (scenario == NULL)
        abort();
    line_count = events_taken = 0;
    while (line_count < LINES && fgets(text, sizeof text, scenario) != NULL) {
        Line *line = &lines[line_count];
        if (text[0] != '#' &&
            sscanf(text, "%15s %79s %159[^\n]", line->device, line->question, line->answer) == 3)
            line_count++;
    }
    fclose(scenario);
    read_at = now.st_mtim;
    read_size = now.st_size;
    read_inode = now.st_ino;
}

static void wait_ms(long ms) {
    struct timespec span = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&span, NULL);
}

static int look_up(const char *device, const char *question, char *answer, size_t size) {
    load();
    for (int i = line_count - 1; i >= 0; i--) {
        const Line *line = &lines[i];
        const char *told = line->answer;
        if (strcmp(line->device, device) != 0 ||
            (strcmp(line->question, "*") != 0 && strcmp(line->question, question) != 0))
            continue;
        if (strcmp(told, "~hang") == 0) {
            struct timespec then = read_at;
            do {
                wait_ms(5);
                load();
            } while (then.tv_sec == read_at.tv_sec && then.tv_nsec == read_at.tv_nsec);
            return UNINITIALIZED;
        }
        if (told[0] == '~') {
            char *rest;
            wait_ms(strtol(told + 1, &rest, 10));
            told = rest + 1;
        }
        if (told[0] == '!')
            return atoi(told + 1);
        snprintf(answer, size, "%s", told);
        return SUCCESS;
    }
    return NOT_SUPPORTED;
}

static int text(void *handle, const char *question, char *answer, size_t size) {
    char device[16];
    snprintf(device, sizeof device, "%d", (int)(intptr_t)handle - 1);
    return initialised ? look_up(device, question, answer, size) : UNINITIALIZED;
}

static int number(void *handle, const char *question, unsigned long long *value) {
    char answer[160];
    int result = text(handle, question, answer, sizeof answer);
    if (result == SUCCESS)
        *value = strtoull(answer, NULL, 10);
    return result;
}

static int small(void *handle, const char *question, unsigned *value) {
    unsigned long long wide = 0;
    int result = number(handle, question, &wide);
    *value = (unsigned)wide;
    return result;
}

static int small_of(void *handle, const char *question, int argument, unsigned *value) {
    char whole[96];
    snprintf(whole, sizeof whole, "%s/%d", question, argument);
    return small(handle, whole, value);
}

static int driver(const char *question, char *answer, size_t size) {
    return look_up("-", question, answer, size);
}

int nvmlInitWithFlags(unsigned flags) {
    char answer[160];
    (void)flags;
    int result = driver("nvmlInit", answer, sizeof answer);
    if (result == SUCCESS && driver("requires", answer, sizeof answer) == SUCCESS && strcmp(answer, VERSION) != 0)
        result = MISMATCH;
    note(result == SUCCESS ? "init" : "init refused");
    initialised += result == SUCCESS;
    return result;
}

int nvmlShutdown(void) {
    if (!initialised)
        return UNINITIALIZED;
    initialised--;
    note("shutdown");
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "an error of the stub";
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    char answer[160];
    int result = initialised ? driver("nvmlDeviceGetCount", answer, sizeof answer) : UNINITIALIZED;
    if (result == SUCCESS)
        *count = (unsigned)atoi(answer);
    return result;
}

static int handle_of(unsigned index, void **handle) {
    char event[32];
    unsigned found;
    snprintf(event, sizeof event, "attach %u", index);
    note(event);
    *handle = (void *)(intptr_t)(index + 1);
    return small(*handle, "nvmlDeviceGetHandle", &found);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { return handle_of(index, handle); }

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **handle) {
    char answer[160];
    for (unsigned index = 0; index < DEVICES; index++)
        if (text((void *)(intptr_t)(index + 1), "nvmlDeviceGetPciInfo.busId", answer, sizeof answer) == SUCCESS &&
            strlen(answer) >= 12 && strcasecmp(answer + strlen(answer) - 12, bus_id) == 0)
            return handle_of(index, handle);
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned size) { return text(handle, "nvmlDeviceGetUUID", uuid, size); }

int nvmlDeviceGetName(void *handle, char *name, unsigned size) { return text(handle, "nvmlDeviceGetName", name, size); }

int nvmlDeviceGetPciInfo_v3(void *handle, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    return text(handle, "nvmlDeviceGetPciInfo.busId", pci->bus_id, sizeof pci->bus_id);
}

int nvmlDeviceGetUtilizationRates(void *handle, Utilization *rates) {
    int result = small(handle, "nvmlDeviceGetUtilizationRates.gpu", &rates->gpu);
    return result == SUCCESS ? small(handle, "nvmlDeviceGetUtilizationRates.memory", &rates->memory) : result;
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    int result = number(handle, "nvmlDeviceGetMemoryInfo.total", &memory->total);
    return result == SUCCESS ? number(handle, "nvmlDeviceGetMemoryInfo.used", &memory->used) : result;
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *degrees) {
    return small_of(handle, "nvmlDeviceGetTemperature", sensor, degrees);
}

int nvmlDeviceGetTemperatureThreshold(void *handle, int threshold, unsigned *degrees) {
    return small_of(handle, "nvmlDeviceGetTemperatureThreshold", threshold, degrees);
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
    return small(handle, "nvmlDeviceGetPowerUsage", milliwatts);
}

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) {
    return small(handle, "nvmlDeviceGetEnforcedPowerLimit", milliwatts);
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
    return number(handle, "nvmlDeviceGetTotalEnergyConsumption", millijoules);
}

int nvmlDeviceGetClockInfo(void *handle, int domain, unsigned *megahertz) {
    return small_of(handle, "nvmlDeviceGetClockInfo", domain, megahertz);
}

int nvmlDeviceGetMaxClockInfo(void *handle, int domain, unsigned *megahertz) {
    return small_of(handle, "nvmlDeviceGetMaxClockInfo", domain, megahertz);
}

int nvmlDeviceGetFanSpeed(void *handle, unsigned *percent) { return small(handle, "nvmlDeviceGetFanSpeed", percent); }

int nvmlDeviceGetPerformanceState(void *handle, unsigned *state) {
    return small(handle, "nvmlDeviceGetPerformanceState", state);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *bits) {
    return number(handle, "nvmlDeviceGetCurrentClocksThrottleReasons", bits);
}

int nvmlDeviceGetEncoderUtilization(void *handle, unsigned *percent, unsigned *period) {
    *period = 0;
    return small(handle, "nvmlDeviceGetEncoderUtilization.0", percent);
}

int nvmlDeviceGetDecoderUtilization(void *handle, unsigned *percent, unsigned *period) {
    *period = 0;
    return small(handle, "nvmlDeviceGetDecoderUtilization.0", percent);
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, Process *processes) {
    unsigned running = 0;
    int result = small(handle, "nvmlDeviceGetComputeRunningProcesses", &running);
    if (result == SUCCESS && *count < running)
        result = INSUFFICIENT_SIZE;
    else if (processes != NULL)
        memset(processes, 0, running * sizeof *processes);
    *count = running;
    return result;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    *pending = 0;
    return small(handle, "nvmlDeviceGetMigMode.0", current);
}

int nvmlDeviceGetCurrPcieLinkWidth(void *handle, unsigned *lanes) {
    return small(handle, "nvmlDeviceGetCurrPcieLinkWidth", lanes);
}

int nvmlDeviceGetMaxPcieLinkWidth(void *handle, unsigned *lanes) {
    return small(handle, "nvmlDeviceGetMaxPcieLinkWidth", lanes);
}

int nvmlDeviceGetPcieThroughput(void *handle, int direction, unsigned *kilobytes) {
    return small_of(handle, "nvmlDeviceGetPcieThroughput", direction, kilobytes);
}

int nvmlDeviceGetFieldValues(void *handle, int count, Field *fields) {
    unsigned found;
    int reached = small(handle, "nvmlDeviceGetFieldValues", &found);
    if (reached != SUCCESS)
        return reached;
    for (int i = 0; i < count; i++) {
        char question[96];
        snprintf(question, sizeof question, "nvmlDeviceGetFieldValues/%u", fields[i].id);
        fields[i].value.whole = 0;
        fields[i].type = 3;
        fields[i].result = number(handle, question, &fields[i].value.whole);
    }
    return SUCCESS;
}

int nvmlDeviceValidateInforom(void *handle) {
    unsigned found;
    return small(handle, "nvmlDeviceValidateInforom", &found);
}

int nvmlEventSetCreate(void **set) {
    char answer[160];
    *set = &lines;
    return driver("nvmlEventSetCreate", answer, sizeof answer);
}

int nvmlEventSetFree(void *set) {
    (void)set;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(void *handle, unsigned long long types, void *set) {
    unsigned found;
    (void)types, (void)set;
    return small(handle, "nvmlDeviceRegisterEvents", &found);
}

int nvmlEventSetWait_v2(void *set, Event *event, unsigned timeout_ms) {
    int seen = 0;
    (void)set, (void)timeout_ms;
    load();
    for (int i = 0; i < line_count; i++)
        if (strcmp(lines[i].question, "xid") == 0 && seen++ == events_taken) {
            events_taken++;
            memset(event, 0, sizeof *event);
            event->device = (void *)(intptr_t)(atoi(lines[i].device) + 1);
            event->data = strtoull(lines[i].answer, NULL, 10);
            return SUCCESS;
        }
    return TIMEOUT;
}
