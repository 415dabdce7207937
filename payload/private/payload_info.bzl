"""The provider of payloads."""

DOC = "A payload: the documents of its image, and the components that are its layers."

FIELDS = {
    "components": "list of ComponentInfo, in the order of the layers",
    "config": "File: the image's config",
    "index": "File: the image index, which the payload's digest is the digest of",
    "manifest": "File: the image's manifest",
    "platform": "name of the platform, such as tdx",
    "receipt": "File: what is published where, once it is published",
}

PayloadInfo = provider(doc = DOC, fields = FIELDS)
