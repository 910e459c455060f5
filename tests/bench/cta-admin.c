/* A stand-in for cta-admin that costs as little as a program can, so that what is measured is whoever calls it.
 * It keeps nothing: the same question has the same answer, and it refuses whatever would change something.
 *
 * BENCH_CTA_WAIT_US  sleeps so many microseconds before it answers
 * BENCH_CTA_POOL     the tape pool that every tape is in (default tolabel_LTO8)
 * BENCH_CTA_STATE    the CTA state of every tape (default ACTIVE)
 * BENCH_CTA_TAPES    a file that is the answer to `tape ls --all`
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char TAPE[] =
    "[{\"vid\":\"%s\",\"mediaType\":\"LTO8\",\"vendor\":\"MAKER\",\"logicalLibrary\":\"LIB1\",\"tapepool\":\"%s\",\"vo\":\"vo\","
    "\"encryptionKeyName\":\"\",\"capacity\":\"12000000000000\",\"occupancy\":\"0\",\"lastFseq\":\"0\",\"full\":false,"
    "\"dirty\":false,\"fromCastor\":false,\"readMountCount\":\"12\",\"writeMountCount\":\"7\",\"nbMasterFiles\":\"0\","
    "\"masterDataInBytes\":\"0\",\"labelLog\":{\"drive\":\"DRIVE1\",\"time\":\"1600000000\"},\"lastWrittenLog\":{\"drive\":"
    "\"DRIVE2\",\"time\":\"1650000000\"},\"lastReadLog\":{\"drive\":\"DRIVE3\",\"time\":\"1700000000\"},\"creationLog\":"
    "{\"username\":\"ops\",\"host\":\"frontend\",\"time\":\"1600000000\"},\"lastModificationLog\":{\"username\":\"ops\","
    "\"host\":\"frontend\",\"time\":\"1700000000\"},\"comment\":\"\",\"state\":\"%s\",\"stateReason\":\"\",\"purchaseOrder\":"
    "\"\",\"physicalLibrary\":\"LIB1\",\"stateUpdateTime\":\"1700000000\",\"stateModifiedBy\":\"ops\"}]\n";
static const char VERSION[] =
    "[{\"clientVersion\":{\"ctaVersion\":\"5.11.20.0-1\",\"xrootdSsiProtobufInterfaceVersion\":\"v1.11\"},\"serverVersion\":"
    "{\"ctaVersion\":\"5.11.20.0-1\",\"xrootdSsiProtobufInterfaceVersion\":\"v1.11\"},\"catalogueConnectionString\":\"\","
    "\"catalogueVersion\":\"15.0\",\"isUpgrading\":false,\"schedulerBackendName\":\"bench\",\"instanceName\":\"bench\"}]\n";

static int put(const char *bytes, size_t length) {
  while (length > 0) {
    ssize_t written = write(1, bytes, length);
    if (written < 0) return 1;
    bytes += written;
    length -= (size_t)written;
  }
  return 0;
}

static int say(const char *text) { return put(text, strlen(text)); }

static int copy(const char *path) {
  static char piece[1 << 16];
  int from = path ? open(path, O_RDONLY) : -1;
  if (from < 0) return 1;
  for (ssize_t length; (length = read(from, piece, sizeof piece)) > 0;)
    if (put(piece, (size_t)length)) return 1;
  return 0;
}

static int refuse(const char *why) {
  if (say("[]\n") || write(2, why, strlen(why)) < 0) return 1;
  return 2;
}

static const char *or_else(const char *name, const char *other) {
  const char *value = getenv(name);
  return value ? value : other;
}

int main(int count, char **words) {
  const char *vid = NULL, *command = "", *verb = "";
  int all = 0, i = 1;
  if (i < count && !strcmp(words[i], "--json")) i++;
  if (i + 1 < count && !strcmp(words[i], "--config")) i += 2;
  if (i < count) command = words[i++];
  if (i < count) verb = words[i++];
  for (; i < count; i++) {
    if (!strcmp(words[i], "--all")) all = 1;
    if (!strcmp(words[i], "--vid") && i + 1 < count) vid = words[++i];
  }
  long wait = atol(or_else("BENCH_CTA_WAIT_US", "0"));
  if (wait > 0) {
    struct timespec pause = {wait / 1000000, wait % 1000000 * 1000};
    nanosleep(&pause, NULL);
  }
  if (!strcmp(command, "version")) return say(VERSION);
  if (strcmp(verb, "ls")) return refuse("this stand-in changes nothing\n");
  if (!strcmp(command, "repack")) return vid ? refuse("There is no repack request for this tape\n") : say("[]\n");
  if (strcmp(command, "tape")) return refuse("this stand-in knows tapes and repacks only\n");
  if (all) return copy(getenv("BENCH_CTA_TAPES"));
  if (vid == NULL || strlen(vid) > 20) return refuse("which tape?\n");
  char answer[4096];
  int length = snprintf(answer, sizeof answer, TAPE, vid, or_else("BENCH_CTA_POOL", "tolabel_LTO8"),
                        or_else("BENCH_CTA_STATE", "ACTIVE"));
  return put(answer, (size_t)length);
}
