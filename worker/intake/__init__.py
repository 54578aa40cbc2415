"""The way in: what producers send is read here, stored as inbox rows, and rung for."""
