/* The one function of bcryptprimitives.dll that Rust's standard library calls, for wine 8, which has no
   such library: scripts/emulated.sh lays it beside the test programs. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *buffer, SIZE_T length) {
    return SystemFunction036(buffer, (ULONG)length);
}
