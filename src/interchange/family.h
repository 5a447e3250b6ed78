/* Families of models as Hugging Face transformers lays them out: what their tensors and the keys of
 * their config.json are called. One row of one table a family (family.c); what reads and writes
 * (names.c, config_read.c, config_write.c) knows none of them. */
#ifndef MT_INTERCHANGE_FAMILY_H
#define MT_INTERCHANGE_FAMILY_H

#include <stdbool.h>

/* How experts lie in the files: each matrix of each expert a tensor, or those of a layer in two,
 * gate_up_proj [E,2F,D] (an expert's gate, then its up) and down_proj [E,D,F]. */
enum mt_expert_layout { MT_LAYOUT_PER_EXPERT, MT_LAYOUT_GROUPED, MT_N_LAYOUT };

/* A tensor here and there. The first * of `theirs` is the layer, the second the expert. */
struct mt_tensor_name {
    const char *ours; /* * is the layer, "layers/[*]/moe/router"; NULL ends a list */
    const char *theirs;
};

/* How a key of config.json becomes one of [model] or [moe]. */
enum mt_json_kind {
    MT_JSON_INTEGER,      /* required */
    MT_JSON_MAY_BE_NULL,  /* integer; null or absent: the default here, which is also theirs */
    MT_JSON_REAL,         /* absent: `absent` */
    MT_JSON_BOOL,         /* absent: `absent` */
    MT_JSON_THETA,        /* rope_theta, or rope_parameters.rope_theta; absent: `absent` */
    MT_JSON_DENSE_COUNT,  /* leading dense layers as a number; absent: 0 */
    MT_JSON_DENSE_LIST,   /* the same as a list of layers */
    MT_JSON_DENSE_WIDTH,  /* integer, means something when there are dense layers */
    MT_JSON_SHARED_WIDTH, /* of one shared expert */
    MT_JSON_SHARED_COUNT  /* integer; null or absent: 0 */
};
struct mt_interchange_key {
    const char *theirs; /* NULL ends a list */
    const char *other;  /* another name that is read; NULL: none */
    const char *ours;   /* "model.hidden_size" */
    enum mt_json_kind kind;
    const char *absent; /* JSON */
};

/* Ours that the family always has, in TOML: written on import, looked at on export. */
struct mt_interchange_trait {
    const char *ours, *value; /* NULL ends a list */
};

/* Theirs of which only some values can be had here; the first is written. JSON values without
 * spaces, separated by spaces. */
struct mt_interchange_demand {
    const char *theirs, *allowed; /* NULL ends a list */
    const char *absent;           /* what no key means */
    bool is_written;
};

struct mt_family {
    const char *word;                  /* on the command line: "mixtral" */
    const char *title;                 /* for people: "Mixtral" */
    const char *model_type;            /* in config.json */
    const char *architecture;          /* of transformers */
    bool is_dense;                     /* no layer has experts */
    bool has_plain_rope;               /* its code cannot stretch the rotary embedding */
    const struct mt_tensor_name *name; /* beside mt_common_names */
    const struct mt_tensor_name *expert[MT_N_LAYOUT]; /* looked at before all others */
    const struct mt_interchange_key *key;             /* beside mt_common_keys */
    const struct mt_interchange_trait *trait;
    const struct mt_interchange_demand *demand; /* beside mt_common_demands */
};

extern const struct mt_tensor_name mt_common_names[];
extern const struct mt_interchange_key mt_common_keys[];
extern const struct mt_interchange_demand mt_common_demands[];
extern const struct mt_family mt_families[];
extern const int mt_n_family;

/* NULL: there is none of this word, or of this model_type. */
const struct mt_family *mt_family_of_word(const char *word);
const struct mt_family *mt_family_of_type(const char *model_type);
/* "mixtral, olmoe, ..."; text [bytes] */
void mt_family_list(char *text, int bytes);

#endif
