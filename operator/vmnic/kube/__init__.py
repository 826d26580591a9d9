"""The only code that talks to the API server: client, reflector, work queue, lease, conditions."""
