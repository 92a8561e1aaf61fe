#!/bin/sh
# Everything the servers must hold before the product starts. Each step may be repeated without harm.
set -eu

curl -fsS -X PUT -H 'Content-Type: application/json' -d '{"compatibility":"BACKWARD"}' \
    "$FHIREHOSE__REGISTRY__URL/config"
echo

fhirehose topics apply
fhirehose migrate apply

# register SOURCE HOST SERVER_ID CONVERTER: fills the connector's template and hands it to Connect.
register() {
    jq -s '.[0] * .[1]' connect/hospital.json "connect/$4" \
        | sed -e "s|\${SOURCE}|$1|g" -e "s|\${DATABASE_HOST}|$2|g" -e "s|\${DATABASE_SERVER_ID}|$3|g" \
            -e 's|${DATABASE_PORT}|3306|g' -e 's|${DATABASE_USER}|debezium|g' -e 's|${DATABASE_PASSWORD}|debezium|g' \
            -e "s|\${KAFKA_BROKERS}|$FHIREHOSE__KAFKA__BROKERS|g" -e 's|${REPLICATION_FACTOR}|1|g' \
            -e "s|\${REGISTRY_URL}|$REGISTRY_NATIVE_URL|g" \
        | curl -fsS -X PUT -H 'Content-Type: application/json' -d @- "$CONNECT_URL/connectors/$1/config"
    echo
}

for hospital in ${HOSPITALS:-}; do
    case $hospital in
        hospital-a) register hospital_a hospital-a 1101 avro.json ;;
        hospital-b) register hospital_b hospital-b 1102 json.json ;;
        *) echo "init: unknown hospital $hospital" >&2; exit 1 ;;
    esac
done
