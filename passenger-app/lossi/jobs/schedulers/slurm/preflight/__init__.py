"""Before submitting: a request held against the limits of partition, nodes, association and QOS. Pure."""
