/* Checks that believe every extent of K: the fuzzer must find out. Linked with --wrap=tril_check_call. */
#include "check.h"

tril_status __real_tril_check_call(const tril_attention *, enum tril_operation, const tril_weights_out *,
                                   struct tril_checked *);
tril_status __wrap_tril_check_call(const tril_attention *, enum tril_operation, const tril_weights_out *,
                                   struct tril_checked *);

tril_status __wrap_tril_check_call(const tril_attention *call, enum tril_operation operation,
                                   const tril_weights_out *to, struct tril_checked *checked)
{
    if (call->struct_size != sizeof *call) return __real_tril_check_call(call, operation, to, checked);
    tril_attention longer = *call;
    if (longer.k.bytes >= 0) longer.k.bytes = INT64_MAX / 4;
    return __real_tril_check_call(&longer, operation, to, checked);
}
