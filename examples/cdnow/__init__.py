"""69,659 real purchases of 23,570 real customers, posted as touchpoints and asked about as of three days."""
