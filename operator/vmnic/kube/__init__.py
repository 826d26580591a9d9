"""Access to the API server, with client, reflector, work queue, lease and conditions.

No other package sends requests to it.
"""
