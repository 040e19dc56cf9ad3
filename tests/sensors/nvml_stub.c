/* A driver library that answers from the text file $NVML_STUB_SCENARIO, read anew at each call.
 *
 * A line is "<device> <question> <answer>": the device is its index, or - for the driver itself; the
 * question is a word below, or * for all of them; an answer that begins with ! is an error code. The last
 * line that fits counts. Without one, a question is not supported. Initialising and shutting down are
 * appended to $NVML_STUB_LOG.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3 };

typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;

static int initialised;

static void note(const char *event) {
    FILE *log = fopen(getenv("NVML_STUB_LOG"), "a");
    if (log == NULL)
        abort();
    fprintf(log, "%s\n", event);
    fclose(log);
}

static int look_up(const char *device, const char *question, char *answer, size_t size) {
    char line[256], named[16], asked[64], told[128];
    int result = NOT_SUPPORTED;
    FILE *scenario = fopen(getenv("NVML_STUB_SCENARIO"), "r");
    if (scenario == NULL)
        abort();
    while (fgets(line, sizeof line, scenario) != NULL) {
        if (sscanf(line, "%15s %63s %127[^\n]", named, asked, told) != 3)
            continue;
        if (strcmp(named, device) != 0 || (strcmp(asked, "*") != 0 && strcmp(asked, question) != 0))
            continue;
        result = told[0] == '!' ? atoi(told + 1) : SUCCESS;
        snprintf(answer, size, "%s", told);
    }
    fclose(scenario);
    return result;
}

static int text(const char *device, const char *question, char *answer, size_t size) {
    return initialised ? look_up(device, question, answer, size) : UNINITIALIZED;
}

static int number(void *handle, const char *question, unsigned long long *value) {
    char device[16], answer[128];
    snprintf(device, sizeof device, "%d", (int)(intptr_t)handle - 1);
    int result = text(device, question, answer, sizeof answer);
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

int nvmlInitWithFlags(unsigned flags) {
    char answer[128];
    (void)flags;
    int result = look_up("-", "init", answer, sizeof answer);
    note(result == SUCCESS ? "init" : "init refused");
    if (result == SUCCESS)
        initialised = 1;
    return result;
}

int nvmlShutdown(void) {
    if (!initialised)
        return UNINITIALIZED;
    initialised = 0;
    note("shutdown");
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "an error of the stub";
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    char answer[128];
    int result = text("-", "count", answer, sizeof answer);
    if (result == SUCCESS)
        *count = (unsigned)atoi(answer);
    return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    unsigned found;
    *handle = (void *)(intptr_t)(index + 1);
    return small(*handle, "handle", &found);
}

static int identity(void *handle, const char *question, char *value, unsigned size) {
    char device[16];
    snprintf(device, sizeof device, "%d", (int)(intptr_t)handle - 1);
    return text(device, question, value, size);
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned size) { return identity(handle, "uuid", uuid, size); }

int nvmlDeviceGetName(void *handle, char *name, unsigned size) { return identity(handle, "name", name, size); }

int nvmlDeviceGetUtilizationRates(void *handle, Utilization *rates) {
    return small(handle, "utilization", &rates->gpu);
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    int result = number(handle, "memory_total", &memory->total);
    return result == SUCCESS ? number(handle, "memory_used", &memory->used) : result;
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *degrees) {
    return sensor == 0 ? small(handle, "temperature", degrees) : NOT_SUPPORTED;
}

int nvmlDeviceGetTemperatureThreshold(void *handle, int threshold, unsigned *degrees) {
    return threshold == 1 ? small(handle, "slowdown", degrees) : NOT_SUPPORTED;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) { return small(handle, "power", milliwatts); }

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) {
    return small(handle, "power_limit", milliwatts);
}

int nvmlDeviceGetClockInfo(void *handle, int domain, unsigned *megahertz) {
    return domain == 1 ? small(handle, "sm_clock", megahertz) : NOT_SUPPORTED;
}

int nvmlDeviceGetMaxClockInfo(void *handle, int domain, unsigned *megahertz) {
    return domain == 1 ? small(handle, "sm_clock_max", megahertz) : NOT_SUPPORTED;
}

int nvmlDeviceGetFanSpeed(void *handle, unsigned *percent) { return small(handle, "fan", percent); }
