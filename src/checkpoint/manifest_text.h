/* What writer and reader of manifest.json agree upon. */
#ifndef MT_CHECKPOINT_MANIFEST_TEXT_H
#define MT_CHECKPOINT_MANIFEST_TEXT_H

#define MT_MANIFEST_FORMAT   "moetrain-checkpoint"
#define MT_MANIFEST_FLOAT32  "float32"
#define MT_MANIFEST_BFLOAT16 "bfloat16"
/* The end of the file, of fixed length; the checksum is that of everything before it. */
#define MT_MANIFEST_TAIL_FORMAT "\n \"checksum\": \"%016llx\"\n}\n"
enum {
    MT_MANIFEST_HEX_DIGITS = 16,
    MT_MANIFEST_TAIL_BYTES =
        sizeof(MT_MANIFEST_TAIL_FORMAT) - sizeof("%016llx") + MT_MANIFEST_HEX_DIGITS
};

#endif
