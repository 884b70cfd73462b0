#include "daemon/formats/family.h"

#include "base/aux.h"

static const struct family families[] = {
#define FAMILY(name_, format_, base_url_, chat_path_, auth_, key_env_, quirks_) \
	{ name_, FAMILY_FORMAT_##format_, base_url_, chat_path_, FAMILY_AUTH_##auth_, key_env_, \
		quirks_ },
#include "daemon/formats/tbl/families.h"
#undef FAMILY
};

/* In every build: a family that was left out is not one that nobody knows. */
static const struct {
	const char *name, *key_env;
} known[] = {
#define FAMILY_ALL
#define FAMILY(name_, format_, base_url_, chat_path_, auth_, key_env_, quirks_) { name_, key_env_ },
#include "daemon/formats/tbl/families.h"
#undef FAMILY
#undef FAMILY_ALL
};

const struct family *family_find(struct str name)
{
	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		if (str_is(name, families[i].name))
			return &families[i];
	return NULL;
}

const struct family *family_table(size_t *count)
{
	*count = ARRAY_SIZE(families);
	return families;
}

const char *family_example_key(void)
{
	return families[0].key_env;
}

bool family_is_left_out(struct str name)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (str_is(name, known[i].name))
			return !family_find(name);
	return false;
}

const char *family_left_out_key(bool (*present)(const char *variable))
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].key_env && !family_find(str_of(known[i].name)) &&
			present(known[i].key_env))
			return known[i].key_env;
	return NULL;
}
