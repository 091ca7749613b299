"""Where bytes lie - disks, buckets, archives - and in which encoding images are stored there."""
