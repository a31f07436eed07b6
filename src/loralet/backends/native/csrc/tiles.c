#include "api.h"

#if defined __AMX_TILE__ && !defined LORALET_EMULATE_TILES
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>

#define REQUEST_PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM */
#define TILE_DATA 18              /* XFEATURE_XTILEDATA */

/* Linux (from 5.16 on) saves tiles only for processes that ask for it. */
int allow_tiles(int64_t *allowed) {
  *allowed = !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
  return OK;
}
#else
int allow_tiles(int64_t *allowed) {
  *allowed = 0; /* how to ask is not known */
  return OK;
}
#endif
#else
int allow_tiles(int64_t *allowed) {
  *allowed = 1;
  return OK;
}
#endif
