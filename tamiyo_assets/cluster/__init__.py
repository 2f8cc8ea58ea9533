"""Use several machines: runs on Celery workers, and one asset, partitioned by run bucket, for backfills."""
