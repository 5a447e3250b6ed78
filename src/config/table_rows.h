/* How a row of the table of keys is written. Included by table.c alone. */
#ifndef MT_CONFIG_TABLE_ROWS_H
#define MT_CONFIG_TABLE_ROWS_H

/* A row: section, name, [min, max for numbers], [choices], [room of a text], help, then what
 * differs from key to key. Limits of sizes are powers of two, written 0x1p20: far beyond what is
 * trained today, and a product of two of them stays inside 63 bits. */
#define HEAD(type_, section_, name_, help_) \
    .section = (section_), .name = (name_), .type = (type_), .help = (help_)
#define INTEGER(section, name, min_, max_, help, ...)                                        \
    {                                                                                        \
        HEAD(MT_KEY_INTEGER, section, name, help), .min = (min_), .max = (max_), __VA_ARGS__ \
    }
#define AUTO_INTEGER(section, name, min_, max_, help, ...)                                        \
    {                                                                                             \
        HEAD(MT_KEY_AUTO_INTEGER, section, name, help), .min = (min_), .max = (max_), __VA_ARGS__ \
    }
#define REAL(section, name, min_, max_, help, ...)                                        \
    {                                                                                     \
        HEAD(MT_KEY_REAL, section, name, help), .min = (min_), .max = (max_), __VA_ARGS__ \
    }
#define REAL_PAIR(section, name, min_, max_, help, ...)                                        \
    {                                                                                          \
        HEAD(MT_KEY_REAL_PAIR, section, name, help), .min = (min_), .max = (max_), __VA_ARGS__ \
    }
#define REALS(section, name, min_, max_, help, ...)                                        \
    {                                                                                      \
        HEAD(MT_KEY_REALS, section, name, help), .min = (min_), .max = (max_), __VA_ARGS__ \
    }
#define PATH_SETS(section, name, help, ...)                      \
    {                                                            \
        HEAD(MT_KEY_PATH_SETS, section, name, help), __VA_ARGS__ \
    }
#define FACTORS(section, name, min_, max_, help, ...)                                        \
    {                                                                                        \
        HEAD(MT_KEY_FACTORS, section, name, help), .min = (min_), .max = (max_), __VA_ARGS__ \
    }
#define BOOL(section, name, help, ...)                      \
    {                                                       \
        HEAD(MT_KEY_BOOL, section, name, help), __VA_ARGS__ \
    }
#define CHOICE(section, name, choices_, help, ...)                                   \
    {                                                                                \
        HEAD(MT_KEY_CHOICE, section, name, help), .choices = (choices_), __VA_ARGS__ \
    }
#define TEXT(section, name, room, help, ...)                                       \
    {                                                                              \
        HEAD(MT_KEY_TEXT, section, name, help), .field_bytes = (room), __VA_ARGS__ \
    }
#define PATHS(section, name, help, ...)                      \
    {                                                        \
        HEAD(MT_KEY_PATHS, section, name, help), __VA_ARGS__ \
    }
#define INTEGERS(section, name, min_, max_, help, ...)                                        \
    {                                                                                         \
        HEAD(MT_KEY_INTEGERS, section, name, help), .min = (min_), .max = (max_), __VA_ARGS__ \
    }

#define REQUIRED(example_)          .required = true, .example = (example_)
#define DERIVED(derived_, example_) .derived = (derived_), .example = (example_)
#define DEFAULT(value_)             .value = (value_)
#define ONLY(only_)                 .only = (only_)
#define FIELD(member)               .offset = offsetof(struct mt_config, member)
#define NO_FIELD                    .offset = MT_NO_FIELD

#endif
