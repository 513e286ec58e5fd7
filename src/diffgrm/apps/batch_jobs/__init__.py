"""Jobs on Ray Data: recommendations for any number of users, vectors for any number of items; the extra ``ray``.

A job is a list of numbered partitions, each of which a worker reads, computes and writes by itself: to a temporary name,
then in one rename, then a mark that it is done. Ray Data holds the workers, hands out the numbers and replaces what dies;
rows do not travel through it. So what is done is what is on the disk: a job that was killed, wherever, goes on with the
partitions that have no mark, and neither Ray's checkpoints nor its shuffles nor its object store are needed. Histories are
brought together by a first pass that writes the events in order of their user's bucket; a bucket of users is a partition of
the second.
"""

from diffgrm.apps.batch_jobs.embedding import embed_batch as embed_batch
from diffgrm.apps.batch_jobs.recommending import recommend_batch as recommend_batch
