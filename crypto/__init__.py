"""Who signed what: identities, signed envelopes, replay, commitments, the ids of blobs."""
