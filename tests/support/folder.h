/* A folder of a test's own, for the files that it writes. */
#ifndef MT_TEST_FOLDER_H
#define MT_TEST_FOLDER_H

/* Set-up and tear-down of a group: an empty folder in $TMPDIR, else in /tmp; with all in it. */
int mt_test_folder_make(void **state);
int mt_test_folder_remove(void **state);

const char *mt_test_folder(void);
/* Of a name in it; the text stays for one more call. */
const char *mt_test_path(const char *name);

#endif
