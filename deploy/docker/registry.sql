-- The schema registry keeps its schemas beside the product's data, in a database of its own.
CREATE DATABASE registry;
