#include "tests/fakeprovider/certs.h"

#include "base/aux.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define DAY (24L * 3600)

struct leaf {
	const char *name, *common_name, *alt_names;
	long from, until; /* seconds from now */
	bool self_signed;
};

static const char own_names[] = "DNS:localhost,IP:127.0.0.1,IP:::1";

static const struct leaf leaves[] = {
	{ "server", "localhost", own_names, -DAY, 3650 * DAY, false },
	{ "expired", "localhost", own_names, -30 * DAY, -DAY, false },
	{ "wronghost", "wrong.example", "DNS:wrong.example", -DAY, 3650 * DAY, false },
	{ "selfsigned", "localhost", own_names, -DAY, 3650 * DAY, true },
};

struct signer {
	X509 *certificate;
	EVP_PKEY *key;
};

static void free_key(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
}

static void free_certificate(X509 **certificate)
{
	X509_free(*certificate);
}

static void close_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

static int add_extension(X509 *x, const struct signer *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;
	int ok;

	X509V3_set_ctx(&context, issuer ? issuer->certificate : x, x, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	if (!extension)
		return -EINVAL;
	ok = X509_add_ext(x, extension, -1);
	X509_EXTENSION_free(extension);
	return ok ? 0 : -ENOMEM;
}

static int set_identity(X509 *x, EVP_PKEY *key, const char *common_name)
{
	uint64_t serial = 0;
	X509_NAME *name = X509_get_subject_name(x);

	if (RAND_bytes((unsigned char *)&serial, sizeof(serial)) != 1)
		return -EIO;
	if (!X509_set_version(x, 2) || !X509_set_pubkey(x, key) ||
		!ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1) ||
		!X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC,
			(const unsigned char *)"llmkit fake provider", -1, -1, 0) ||
		!X509_NAME_add_entry_by_txt(
			name, "CN", MBSTRING_ASC, (const unsigned char *)common_name, -1, -1, 0))
		return -EIO;
	return 0;
}

static int add_extensions(X509 *x, const struct signer *issuer, const char *alt_names)
{
	int r = add_extension(x, issuer, NID_subject_key_identifier, "hash");

	if (r == 0)
		r = add_extension(x, issuer, NID_authority_key_identifier, "keyid");
	if (r == 0 && !alt_names) {
		r = add_extension(x, issuer, NID_basic_constraints, "critical,CA:TRUE");
		return r ? r :
			   add_extension(x, issuer, NID_key_usage, "critical,keyCertSign,cRLSign");
	}
	if (r == 0)
		r = add_extension(x, issuer, NID_basic_constraints, "critical,CA:FALSE");
	if (r == 0)
		r = add_extension(x, issuer, NID_key_usage, "critical,digitalSignature");
	if (r == 0)
		r = add_extension(x, issuer, NID_ext_key_usage, "serverAuth");
	return r ? r : add_extension(x, issuer, NID_subject_alt_name, alt_names);
}

/* issuer NULL: signed by itself; alt_names NULL: a CA. */
static int make(struct signer *out, const struct signer *issuer, const struct leaf *leaf)
{
	aux_cleanup(free_key) EVP_PKEY *key = EVP_EC_gen("P-256");
	aux_cleanup(free_certificate) X509 *x = X509_new();
	int r;

	if (!key || !x)
		return -ENOMEM;
	r = set_identity(x, key, leaf->common_name);
	if (r < 0)
		return r;
	if (!X509_gmtime_adj(X509_getm_notBefore(x), leaf->from) ||
		!X509_gmtime_adj(X509_getm_notAfter(x), leaf->until) ||
		!X509_set_issuer_name(x, X509_get_subject_name(issuer ? issuer->certificate : x)))
		return -EIO;
	r = add_extensions(x, issuer, leaf->alt_names);
	if (r < 0)
		return r;
	if (!X509_sign(x, issuer ? issuer->key : key, EVP_sha256()))
		return -EIO;
	out->certificate = steal_ptr(x);
	out->key = steal_ptr(key);
	return 0;
}

static int open_new(const char *directory, const char *name, const char *suffix, FILE **out)
{
	char path[4096];
	int fd;

	if (snprintf(path, sizeof(path), "%s/%s%s", directory, name, suffix) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	*out = fdopen(fd, "w");
	return *out ? 0 : -errno;
}

static int save(const char *directory, const char *name, const struct signer *s, bool with_key)
{
	aux_cleanup(close_file) FILE *f = NULL;
	aux_cleanup(close_file) FILE *k = NULL;
	int r = open_new(directory, name, ".pem", &f);

	if (r < 0)
		return r;
	if (!PEM_write_X509(f, s->certificate) || fflush(f))
		return -EIO;
	if (!with_key)
		return 0;
	r = open_new(directory, name, ".key", &k);
	if (r < 0)
		return r;
	if (!PEM_write_PrivateKey(k, s->key, NULL, NULL, 0, NULL, NULL) || fflush(k))
		return -EIO;
	return 0;
}

static void free_signer(struct signer *s)
{
	X509_free(s->certificate);
	EVP_PKEY_free(s->key);
}

static int make_all(const char *directory)
{
	static const struct leaf ca_leaf = { "ca", "llmkit test CA", NULL, -40 * DAY, 3650 * DAY,
		true };
	aux_cleanup(free_signer) struct signer ca = { 0 };
	int r = make(&ca, NULL, &ca_leaf);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(leaves); i++) {
		aux_cleanup(free_signer) struct signer s = { 0 };

		r = make(&s, leaves[i].self_signed ? NULL : &ca, &leaves[i]);
		if (r == 0)
			r = save(directory, leaves[i].name, &s, true);
	}
	/* Last: its presence says that all the others are there. */
	return r ? r : save(directory, "ca", &ca, false);
}

int certs_make(const char *directory)
{
	aux_cleanup(closep) int lock = -1;
	char path[4096];

	if (mkdir(directory, 0700) < 0 && errno != EEXIST)
		return -errno;
	if (snprintf(path, sizeof(path), "%s/.lock", directory) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return -errno;
	snprintf(path, sizeof(path), "%s/ca.pem", directory);
	return access(path, F_OK) == 0 ? 0 : make_all(directory);
}
