"""Several machines: runs on Celery workers, and one asset by run bucket for backfills that spread over them."""
