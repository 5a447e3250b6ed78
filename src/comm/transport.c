#include "comm/transport.h"

void mt_transport_destroy(struct mt_transport *transport)
{
    if (transport != NULL) {
        transport->verbs->destroy(transport);
    }
}
