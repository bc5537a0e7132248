/* The random numbers that Go's runtime takes from bcryptprimitives.dll, which Wine
   before 8.13 does not have: its advapi32 has the same under an older name. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);

BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) { return SystemFunction036(data, (ULONG)size); }

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, LPVOID reserved) { return TRUE; }
