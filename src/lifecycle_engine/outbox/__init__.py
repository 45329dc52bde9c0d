"""What has to be sent to whom, and when: the queue between a change and its webhooks. Sends nothing itself."""
